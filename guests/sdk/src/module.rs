//! Compiled programs, and the children that are started from them.

use capnp::capability::FromClientHook;

use crate::peer_capnp::{executor, module, stdio};
use crate::process::Child;

/// A compiled component, which can be started any number of times.
#[derive(Clone)]
pub struct Module {
    /// The module itself.
    pub client: module::Client,
}

impl Module {
    /// Has the host compile `wasm`, a component. Costs one round trip, and the time of the compiler where the host does not
    /// know these bytes yet.
    ///
    /// # Errors
    ///
    /// When the host refuses, because `wasm` is not a component that it can run, or there are too many modules, or the
    /// connection has failed.
    pub async fn load(executor: &executor::Client, wasm: &[u8]) -> Result<Self, capnp::Error> {
        let mut request = executor.load_request();
        request.get().set_wasm(wasm);
        let client = request.send().promise.await?.get()?.get_module()?;
        Ok(Self { client })
    }

    /// Has the host load a program, or an image, that is named by its CID: `CID`, `/ipfs/CID` or `ipfs://CID`, with a path
    /// below it or without. What is not there is fetched. The children of an image see it as their `/`.
    ///
    /// # Errors
    ///
    /// When this cell does not have the grant `fetch`, or there is no such program, or for any reason of
    /// [`load`](Self::load).
    pub async fn load_content(executor: &executor::Client, content: &str) -> Result<Self, capnp::Error> {
        let mut request = executor.load_request();
        request.get().set_cid(content);
        let client = request.send().promise.await?.get()?.get_module()?;
        Ok(Self { client })
    }

    /// A child that runs this, with nothing but what is set.
    pub fn command(&self) -> ModuleCommand<'_> {
        ModuleCommand { module: self, setup: Setup::default() }
    }
}

/// A child cell to start from a module. It has nothing but what is set here.
#[derive(Clone)]
pub struct ModuleCommand<'module> {
    module: &'module Module,
    setup: Setup,
}

#[derive(Clone, Default)]
struct Setup {
    args: Vec<String>,
    env: Vec<String>,
    grants: Vec<String>,
    limits: Vec<(String, String)>,
    bootstrap: Option<capnp::capability::Client>,
    null: [bool; 3],
}

impl ModuleCommand<'_> {
    /// Adds an argument.
    pub fn arg(&mut self, arg: impl Into<String>) -> &mut Self {
        self.setup.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item: Into<String>>) -> &mut Self {
        self.setup.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.setup.env.push(format!("{name}={value}"));
        self
    }

    /// Hands the child its bootstrap capability: what [`run`](crate::run) passes to its main function. Without it each call
    /// of the child is an error.
    pub fn bootstrap(&mut self, capability: impl FromClientHook) -> &mut Self {
        self.setup.bootstrap = Some(capability.cast_to());
        self
    }

    /// Gives the child a grant, in the words of `ww run --grant`.
    pub fn grant(&mut self, grant: impl Into<String>) -> &mut Self {
        self.setup.grants.push(grant.into());
        self
    }

    /// Sets a limit of the child, in the words of `ww run --limit`. Those that are not set are this cell's.
    pub fn limit(&mut self, name: &str, value: &str) -> &mut Self {
        self.setup.limits.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The child's stdin is at its end.
    pub fn null_stdin(&mut self) -> &mut Self {
        self.setup.null[0] = true;
        self
    }

    /// What the child writes to stdout is thrown away.
    pub fn null_stdout(&mut self) -> &mut Self {
        self.setup.null[1] = true;
        self
    }

    /// What the child writes to stderr is thrown away.
    pub fn null_stderr(&mut self) -> &mut Self {
        self.setup.null[2] = true;
        self
    }

    /// Starts the child; costs one round trip.
    ///
    /// # Errors
    ///
    /// When the host refuses, because a grant or a limit is more than this cell has, or the connection has failed.
    pub async fn spawn(&self) -> Result<Child, capnp::Error> {
        let response = self.request()?.send().promise.await?;
        let started = response.get()?;
        Ok(Child::new(started.get_process()?, started.get_stdin()?, started.get_stdout()?, started.get_stderr()?))
    }

    fn request(&self) -> Result<Spawn, capnp::Error> {
        let mut request = self.module.client.spawn_request();
        let mut params = request.get();
        params.set_args(self.setup.args.as_slice())?;
        params.set_env(self.setup.env.as_slice())?;
        params.set_grants(self.setup.grants.as_slice())?;
        if let Some(capability) = self.setup.bootstrap.clone() {
            params.reborrow().init_bootstrap().set_as_capability(capability.hook);
        }
        let mut limits = params.reborrow().init_limits(self.setup.limits.len() as u32);
        for (index, (name, value)) in (0..).zip(&self.setup.limits) {
            let mut limit = limits.reborrow().get(index);
            limit.set_name(name);
            limit.set_value(value);
        }
        let [stdin, stdout, stderr] =
            self.setup.null.map(|null| if null { stdio::Stream::Null } else { stdio::Stream::Pipe });
        let mut stdio = params.init_stdio();
        stdio.set_stdin(stdin);
        stdio.set_stdout(stdout);
        stdio.set_stderr(stderr);
        Ok(request)
    }
}

type Spawn = capnp::capability::Request<module::spawn_params::Owned, module::spawn_results::Owned>;
