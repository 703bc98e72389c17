//! `Module`: a compiled program, and what its children are to have.

use std::rc::Rc;

use capnp::capability::Client;
use capnp::{Error, struct_list};
use ww_schema::peer_capnp::{limit, module, stdio};

use super::executor::{Bootstrap, Loaded, Order, Spawn, Stream, failed};
use super::process::Started;
use super::texts::{arguments, texts, variables};
use crate::grant::{Grant, Grants, Limit, Limits};

/// How many modules a cell may have: as many as the host knows compiled anyway. Compiled code takes several times what
/// its wasm does, and no limit of the cell counts it; what is kept of it beside the code is the cell's memory.
const MODULES_MAX: usize = 64;

/// How many grants and limits a child can be given, and how long the former may be together, in bytes: there are a dozen
/// limits, and a grant names a network.
const WORDS_MAX: u32 = 256;
const WORDS_BYTES_MAX: usize = 16 * 1024;

/// Room for modules.
#[derive(Default)]
pub(super) struct Slots(Rc<()>);

/// The room of one, for as long as it lives.
pub(super) struct Slot(#[expect(dead_code, reason = "is counted")] Rc<()>);

impl Slots {
    /// Takes one.
    ///
    /// # Errors
    ///
    /// There are as many modules as there may be.
    pub(super) fn take(&self) -> Result<Slot, Error> {
        match Rc::strong_count(&self.0) <= MODULES_MAX {
            true => Ok(Slot(self.0.clone())),
            false => {
                Err(Error::failed(format!("this cell has {MODULES_MAX} modules, which is the most that it may have")))
            }
        }
    }
}

/// The capability that starts what was loaded through `spawn`.
pub(super) fn module(spawn: Rc<impl Spawn + 'static>, loaded: Loaded, slot: Slot) -> module::Client {
    capnp_rpc::new_client(Server { spawn, loaded, _slot: slot })
}

struct Server<S> {
    spawn: Rc<S>,
    loaded: Loaded,
    _slot: Slot,
}

impl<S: Spawn + 'static> module::Server for Server<S> {
    async fn spawn(
        self: Rc<Self>,
        params: module::SpawnParams,
        mut results: module::SpawnResults,
    ) -> Result<(), Error> {
        let order = read_order(params.get()?)?;
        // What was copied out of the message is not booked, but the message is.
        let child = self.spawn.spawn(self.loaded.clone(), order).await.map_err(|error| failed(&error))?;
        drop(params);
        let Started { process, stdin, stdout, stderr } = Started::new(child);
        let mut results = results.get();
        results.set_process(process);
        results.set_stdin(stdin);
        results.set_stdout(stdout);
        results.set_stderr(stderr);
        Ok(())
    }
}

fn read_order(params: module::spawn_params::Reader<'_>) -> Result<Order, Error> {
    let grants = read_grants(params.get_grants()?)?;
    let bootstrap = match params.get_bootstrap() {
        none if none.is_null() && grants.fetch() => Bootstrap::Host,
        none if none.is_null() => Bootstrap::Nothing,
        _ if grants.fetch() => return Err(Error::failed(FETCH_BESIDE.into())),
        given => Bootstrap::Given(given.get_as_capability::<Client>()?),
    };
    let stdio = params.get_stdio()?;
    Ok(Order {
        args: arguments(params.get_args()?)?,
        env: variables(params.get_env()?)?,
        bootstrap,
        network: grants.network(),
        fetch: grants.fetch(),
        limits: read_limits(params.get_limits()?)?,
        stdin: read_stream(stdio.get_stdin()?),
        stdout: read_stream(stdio.get_stdout()?),
        stderr: read_stream(stdio.get_stderr()?),
    })
}

fn read_stream(stream: stdio::Stream) -> Stream {
    match stream {
        stdio::Stream::Pipe => Stream::Pipe,
        stdio::Stream::Null => Stream::Null,
    }
}

/// What a parent is told that gives by name what a capability could be handed for.
const FETCH_BESIDE: &str = "the grant `fetch` comes with a `Host` of the child's own, so it cannot be given beside a \
                            `bootstrap`: an executor that is handed over loads for the cell that it belongs to";

/// The grants that a child can be given by name.
fn read_grants(list: capnp::text_list::Reader<'_>) -> Result<Grants, Error> {
    let mut grants = Vec::new();
    for text in texts("grants", list, WORDS_MAX, WORDS_BYTES_MAX)? {
        let grant: Grant = text.parse().map_err(|error| failed(&error))?;
        let instead = match grant {
            Grant::Network(_) | Grant::Fetch => {
                grants.push(grant);
                continue;
            }
            Grant::Connect(_) | Grant::Terminal => "hand it a `Host` that has it, as its bootstrap capability",
            Grant::Env(_) => "set the variable in `env`",
            Grant::Mount(_) => "only the cell that a person runs can have it",
        };
        let text = crate::escape::short(&text);
        return Err(Error::failed(format!("the grant `{text}` cannot be given to a child; {instead}")));
    }
    Ok(Grants(grants))
}

fn read_limits(list: struct_list::Reader<'_, limit::Owned>) -> Result<Limits, Error> {
    if list.len() > WORDS_MAX {
        return Err(Error::failed(format!("`limits` has {} entries, and {WORDS_MAX} are allowed", list.len())));
    }
    let mut limits = Limits::default();
    for entry in list {
        let limit: Limit = entry.get_name()?.to_str()?.parse().map_err(|error| failed(&error))?;
        let value = limit.parse_value(entry.get_value()?.to_str()?).map_err(|error| failed(&error))?;
        limits.set(limit, value);
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(fill: impl FnOnce(module::spawn_params::Builder<'_>)) -> Result<Order, String> {
        let mut message = capnp::message::Builder::new_default();
        fill(message.init_root());
        read_order(message.get_root_as_reader().unwrap()).map_err(|error| error.extra)
    }

    fn refusal(fill: impl FnOnce(module::spawn_params::Builder<'_>)) -> String {
        order(fill).err().expect("it is no order")
    }

    #[test]
    fn nothing_is_handed_over_unless_it_is_said() {
        let order = order(|_| ()).unwrap();
        assert!(matches!(order.bootstrap, Bootstrap::Nothing));
        assert_eq!((order.args.len(), order.env.len(), order.network, order.limits), (0, 0, None, Limits::default()));
        assert_eq!((order.stdin, order.stdout, order.stderr), (Stream::Pipe, Stream::Pipe, Stream::Pipe));
    }

    #[test]
    fn grants_that_no_child_can_have_are_refused() {
        let check = |grant: &str, expected: &str| {
            let refused = refusal(|mut params| params.set_grants(&[grant]).unwrap());
            assert!(refused.contains(expected), "{refused}");
        };
        check("connect", "the grant `connect` cannot be given to a child; hand it a `Host`");
        check("env:HOME", "the grant `env:HOME` cannot be given to a child; set the variable in `env`");
        check("mount:/:/data", "cannot be given to a child; only the cell that a person runs can have it");
        check("terminal", "the grant `terminal` cannot be given to a child; hand it a `Host`");
        check("root", "`root` is no grant");
        check("\u{1b}[2J", "is no grant");
        let order = order(|mut params| params.set_grants(&["network:10.0.0.0/8"]).unwrap()).unwrap();
        assert!(order.network.unwrap().allows("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_child_that_may_load_has_a_host_of_its_own() {
        let bare = order(|mut params| params.set_grants(&["fetch"]).unwrap()).unwrap();
        assert!(matches!(bare.bootstrap, Bootstrap::Host));
        assert!(bare.fetch);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let set = |name: &str, value: &str| {
            order(|params| {
                let mut limit = params.init_limits(1).get(0);
                limit.set_name(name);
                limit.set_value(value);
            })
        };
        assert_eq!(set("memory", "64MiB").unwrap().limits.number(Limit::Memory), Some(64 << 20));
        let check = |name: &str, value: &str, expected: &str| {
            let refused = set(name, value).err().expect("it is no limit");
            assert!(refused.contains(expected), "{refused}");
        };
        check("speed", "1", "`speed` is no limit");
        check("memory", "much", "`much` is no value for the limit memory");
        check("memory", "1TiB", "it is more than 64GiB");
        check("", "", "`` is no limit");
    }

    #[test]
    fn a_cell_has_so_many_modules_and_no_more() {
        let slots = Slots::default();
        let mut taken: Vec<_> = (0..MODULES_MAX).map(|_| slots.take().unwrap()).collect();
        let full = slots.take().err().expect("there is no room").extra;
        assert_eq!(full, "this cell has 64 modules, which is the most that it may have");
        taken.pop();
        slots.take().unwrap();
    }
}
