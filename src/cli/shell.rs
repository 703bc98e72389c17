//! Command lines as they are shown, to be copied into a shell.

use crate::escape;

/// Arguments in a form in which a POSIX shell takes them for just these (XCU 2.2.2). What would not show is escaped as
/// everywhere: an argument with such a character is another one then, but never more than one.
pub(super) fn arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = arguments.into_iter().map(|argument| quote(&escape::text(argument))).collect();
    quoted.join(" ")
}

fn quote(argument: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:=,@%+-".contains(&byte);
    match !argument.is_empty() && argument.bytes().all(is_plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_it_is_quoted() {
        assert_eq!(arguments(["--grant", "mount:SRC:/data:rw"]), "--grant mount:SRC:/data:rw");
        assert_eq!(arguments(["mount:SRC:/x $(touch y)", ""]), "'mount:SRC:/x $(touch y)' ''");
        assert_eq!(arguments(["it's; a\nb", "~", "*"]), r"'it'\''s; a\nb' '~' '*'");
    }

    #[test]
    fn a_shell_takes_them_for_what_they_were() {
        let given = ["--grant", "mount:SRC:/x $(echo y) `z` \\ \" ' $HOME", "ä", "#", "a=b", "!!", ""];
        let script = format!("printf '%s\\n' {}", arguments(given));
        let printed = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), given.join("\n") + "\n");
    }
}
