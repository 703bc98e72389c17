//! Which methods of which interfaces may be called, and how they are called by people.

use capnp::traits::HasTypeId;
use capnp::{Error, struct_list};
use ww_schema::peer_capnp::{byte_stream, executor, host, method, module, process, revoker, terminal};

/// How many entries a list may have. Each interface has some, and a cell works with a few interfaces.
const ENTRIES_MAX: u32 = 1024;

/// The methods that may be called: each with its interface, sorted; `None` is all of them, which come first.
pub(super) struct Methods(Vec<(u64, Option<u16>)>);

impl Methods {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// There are too many, or they are malformed.
    pub(super) fn read(list: struct_list::Reader<'_, method::Owned>) -> Result<Self, Error> {
        if list.len() > ENTRIES_MAX {
            return Err(Error::failed(format!("`methods` has {} entries, and {ENTRIES_MAX} are allowed", list.len())));
        }
        let mut methods = Vec::with_capacity(list.len() as usize);
        for entry in list {
            let number = match entry.which()? {
                method::All(()) => None,
                method::Method(number) => Some(number),
            };
            methods.push((entry.get_interface(), number));
        }
        methods.sort_unstable();
        Ok(Self(methods))
    }

    /// What they take, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        (self.0.capacity() * size_of::<(u64, Option<u16>)>()) as u64
    }

    /// An error unless the method may be called.
    pub(super) fn check(&self, interface: u64, method: u16) -> Result<(), Error> {
        let is_listed = |number| self.0.binary_search(&(interface, number)).is_ok();
        match is_listed(Some(method)) || is_listed(None) {
            true => Ok(()),
            false => Err(Error::failed(format!("not permitted: {} was not granted", name(interface, method)))),
        }
    }
}

/// The interfaces of the schema, and their methods in order.
const NAMES: [(u64, &str, &[&str]); 7] = [
    (
        <host::Client as HasTypeId>::TYPE_ID,
        "Host",
        &["id", "addrs", "peers", "connect", "executor", "restrict", "revocable", "terminal"],
    ),
    (<executor::Client as HasTypeId>::TYPE_ID, "Executor", &["runBytes", "echo", "load"]),
    (<module::Client as HasTypeId>::TYPE_ID, "Module", &["spawn"]),
    (<process::Client as HasTypeId>::TYPE_ID, "Process", &["stdin", "stdout", "stderr", "wait", "kill", "usage"]),
    (<byte_stream::Client as HasTypeId>::TYPE_ID, "ByteStream", &["read", "write", "close"]),
    (<revoker::Client as HasTypeId>::TYPE_ID, "Revoker", &["revoke"]),
    (<terminal::Client as HasTypeId>::TYPE_ID, "Terminal", &["size", "resized", "setRaw"]),
];

/// What a method is called in messages.
fn name(interface: u64, method: u16) -> String {
    let known = NAMES.iter().find(|(number, ..)| *number == interface);
    match known.and_then(|(_, name, methods)| Some((name, methods.get(usize::from(method))?))) {
        Some((interface, method)) => format!("{interface}.{method}"),
        None => format!("method {method} of interface {interface:#018x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_schema() {
        let schema = include_str!("../../capnp/peer.capnp");
        let mut interfaces = Vec::new();
        for line in schema.lines().filter(|line| !line.trim_start().starts_with('#')) {
            if let Some(name) = line.strip_prefix("interface ") {
                interfaces.push((name.trim_end_matches(" {").to_owned(), Vec::new()));
            } else if line.starts_with("struct ") {
                interfaces.push((String::new(), Vec::new()));
            } else if let Some((name, rest)) = line.trim_start().split_once(" @")
                && let Some((number, _)) = rest.split_once(" (")
            {
                let methods = &mut interfaces.last_mut().unwrap().1;
                assert_eq!(number.parse::<usize>().unwrap(), methods.len(), "{name}");
                methods.push(name.to_owned());
            }
        }
        interfaces.retain(|(name, _)| !name.is_empty());
        assert_eq!(interfaces.len(), NAMES.len());
        for (name, methods) in interfaces {
            let (_, _, known) = NAMES.iter().find(|(_, known, _)| *known == name).unwrap();
            assert_eq!(methods, *known, "{name}");
        }
    }

    #[test]
    fn what_is_not_listed_is_not_permitted() {
        let mut message = capnp::message::Builder::new_default();
        let mut list = message.initn_root::<struct_list::Builder<'_, method::Owned>>(3);
        let host = <host::Client as HasTypeId>::TYPE_ID;
        for (index, number) in [(0, 0), (1, 4)] {
            let mut entry = list.reborrow().get(index);
            entry.set_interface(host);
            entry.set_method(number);
        }
        let mut entry = list.reborrow().get(2);
        entry.set_interface(7);
        entry.set_all(());
        let methods = Methods::read(list.into_reader()).unwrap();
        let check = |interface: u64, method: u16, expected: Option<&str>| {
            let error = methods.check(interface, method).err().map(|error| error.extra);
            assert_eq!(error.as_deref(), expected);
        };
        check(host, 0, None);
        check(host, 4, None);
        check(host, 3, Some("not permitted: Host.connect was not granted"));
        check(host, 99, Some(&format!("not permitted: method 99 of interface {host:#018x} was not granted")));
        check(7, 65535, None);
        check(8, 0, Some("not permitted: method 0 of interface 0x0000000000000008 was not granted"));
    }

    #[test]
    fn an_empty_list_permits_nothing_and_a_long_one_is_refused() {
        let mut message = capnp::message::Builder::new_default();
        let empty = message.initn_root::<struct_list::Builder<'_, method::Owned>>(0);
        assert!(Methods::read(empty.into_reader()).unwrap().check(0, 0).is_err());
        let mut message = capnp::message::Builder::new_default();
        let long = message.initn_root::<struct_list::Builder<'_, method::Owned>>(ENTRIES_MAX + 1);
        assert!(Methods::read(long.into_reader()).is_err());
    }
}
