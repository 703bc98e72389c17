//! The text of a lock.

use std::fmt::{Display, Write};

use super::{FORMAT, FORMAT_SINCE, GuestLock, ImageLock, Lock, LockedFile};
use crate::escape;
use crate::wetfile::project::Base;

impl Lock {
    /// The text: the same for equal locks, and read back as the same lock.
    pub fn render(&self) -> String {
        let mut text = format!(
            "# Written by `ww build`, which says here what was built from what. Commit it, and leave changes to ww.\n\
             version = {FORMAT}\nww = \">= {FORMAT_SINCE}\"\n"
        );
        for (name, guest) in &self.guests {
            render_guest(&mut text, name.as_str(), guest);
        }
        for (name, image) in &self.images {
            render_image(&mut text, name.as_str(), image);
        }
        text
    }
}

fn render_guest(text: &mut String, name: &str, guest: &GuestLock) {
    let inputs = &guest.inputs;
    table(text, &format!("guest.{name}"));
    line(text, "recipe", &inputs.recipe);
    if let Some(environment) = &inputs.environment {
        line(text, "environment", environment);
    }
    lines(text, &format!("guest.{name}.inputs"), inputs.roots.iter().map(|(root, digest)| (quoted(root), digest)));
    lines(
        text,
        &format!("guest.{name}.embeds"),
        inputs.embeds.iter().map(|(guest, digest)| (guest.to_string(), digest)),
    );
    lines(
        text,
        &format!("guest.{name}.outputs"),
        guest.outputs.iter().map(|(toolchain, digest)| (quoted(toolchain.as_str()), digest)),
    );
}

fn render_image(text: &mut String, name: &str, image: &ImageLock) {
    table(text, &format!("image.{name}"));
    line(text, "profile", &image.profile);
    match &image.base {
        Some(Base::Image(name)) => add(text, format_args!("base = {{ image = \"{name}\" }}\n")),
        Some(Base::Content(cid)) => add(text, format_args!("base = {{ cid = \"{cid}\" }}\n")),
        None => {}
    }
    let guests = image.guests.iter().map(|(guest, digest)| (guest.to_string(), digest));
    lines(text, &format!("image.{name}.guests"), guests);
    let sources = image.sources.iter().map(|(path, cid)| (quoted(path.as_str()), cid));
    lines(text, &format!("image.{name}.sources"), sources);
    let contents = image.contents.iter().map(|(path, cid)| (quoted(path.as_str()), cid));
    lines(text, &format!("image.{name}.contents"), contents);
    if !image.files.is_empty() {
        table(text, &format!("image.{name}.files"));
    }
    for (path, file) in &image.files {
        match file {
            LockedFile::Copied(cid) => line(text, &quoted(path), cid),
            LockedFile::Guest(guest) => add(text, format_args!("{} = {{ guest = \"{guest}\" }}\n", quoted(path))),
        }
    }
    let cids = image.cids.iter().map(|(toolchain, cid)| (quoted(toolchain.as_str()), cid));
    lines(text, &format!("image.{name}.cids"), cids);
}

/// A table of lines, if there are any.
fn lines(text: &mut String, name: &str, lines: impl Iterator<Item = (String, impl Display)>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        table(text, name);
    }
    for (key, value) in lines {
        line(text, &key, &value);
    }
}

fn table(text: &mut String, name: &str) {
    add(text, format_args!("\n[{name}]\n"));
}

/// A line whose value has no character that TOML escapes.
fn line(text: &mut String, key: &str, value: &dyn Display) {
    add(text, format_args!("{key} = \"{value}\"\n"));
}

fn add(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String does not fail");
}

/// A basic string of TOML, in which nothing moves a cursor.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if escape::is_hidden(character) => add(&mut quoted, format_args!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
