//! In which part of a wasm binary two of them begin to differ.
//!
//! Sections are compared one after the other, and nested modules and components by theirs: the length of a section that
//! another one is in says nothing of where the difference is. Nothing is validated, and what is no wasm has no sections.

use std::fmt::Write as _;
use std::ops::Range;

use wasmparser::BinaryReader;

use crate::escape;
use crate::wasm_binary::{self, Kind};

/// Length of the preamble in bytes.
const PREAMBLE_BYTES: usize = 8;

/// Sections of a core module by their numbers (WebAssembly core specification, 5.5.2).
const MODULE_SECTIONS: [&str; 14] = [
    "custom",
    "type",
    "import",
    "function",
    "table",
    "memory",
    "global",
    "export",
    "start",
    "element",
    "code",
    "data",
    "data count",
    "tag",
];

/// Sections of a component by their numbers (component model, Binary.md).
const COMPONENT_SECTIONS: [&str; 13] = [
    "custom",
    "core module",
    "core instance",
    "core type",
    "component",
    "instance",
    "alias",
    "type",
    "canonical function",
    "start",
    "import",
    "export",
    "value",
];

/// Deepest nesting that is looked into. Components have two or three levels.
const DEPTH_MAX: usize = 64;

/// Where two binaries begin to differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The section, for people: `the custom section "x" of module 0`; `None` where there is no telling.
    pub(super) section: Option<String>,
    /// Where the difference begins in each of both, in bytes.
    pub(super) offsets: [usize; 2],
    /// What was compared of each: the content of the section, or everything.
    pub(super) bodies: [Range<usize>; 2],
}

/// One section of a module or component.
struct Section {
    id: u8,
    /// Of custom sections.
    name: Option<String>,
    /// Its content, the name of a custom section included.
    body: Range<usize>,
}

/// Where two binaries begin to differ; `None` if they are equal.
pub(super) fn first_difference(one: &[u8], other: &[u8]) -> Option<Place> {
    (one != other).then(|| {
        let whole = [0..one.len(), 0..other.len()];
        descend([one, other], whole, &mut Vec::new())
    })
}

/// `around` are the modules or components that what is compared lies in, the outermost first, as people call them.
fn descend(bytes: [&[u8]; 2], ranges: [Range<usize>; 2], around: &mut Vec<String>) -> Place {
    let of = |side: usize, range: &Range<usize>| &bytes[side][range.clone()];
    let kinds = [0, 1].map(|side| wasm_binary::kind(of(side, &ranges[side])));
    let is_wasm = matches!(kinds[0], Kind::Module | Kind::Component) && kinds[0] == kinds[1];
    let preambles = [0, 1].map(|side| of(side, &ranges[side]).get(..PREAMBLE_BYTES));
    if !is_wasm || preambles[0] != preambles[1] {
        return place(bytes, ranges, around.last().map(|_| format!("{}, as a whole", inside(around))));
    }
    let (names, sections): (&[&str], _) = match kinds[0] {
        Kind::Component => (&COMPONENT_SECTIONS, [0, 1].map(|side| sections(bytes[side], &ranges[side]))),
        _ => (&MODULE_SECTIONS, [0, 1].map(|side| sections(bytes[side], &ranges[side]))),
    };
    let is_component = kinds[0] == Kind::Component;
    // How many core modules and components came before.
    let (mut modules, mut components) = (0, 0);
    for (one, other) in sections[0].iter().zip(&sections[1]) {
        let is_same_section = one.id == other.id && one.name == other.name;
        if !is_same_section {
            let text = format!("{} where the other has {}", called(one, names), called(other, names));
            return place(bytes, [one.body.clone(), other.body.clone()], Some(text + &of_what(around)));
        }
        let bodies = [one.body.clone(), other.body.clone()];
        if of(0, &bodies[0]) == of(1, &bodies[1]) {
            modules += usize::from(is_component && one.id == 1);
            components += usize::from(is_component && one.id == 4);
            continue;
        }
        let nested = match one.id {
            1 if is_component => Some(format!("module {modules}")),
            4 if is_component => Some(format!("component {components}")),
            _ => None,
        };
        return match nested.filter(|_| around.len() < DEPTH_MAX) {
            Some(nested) => {
                around.push(nested);
                descend(bytes, bodies, around)
            }
            None => place(bytes, bodies, Some(called(one, names) + &of_what(around))),
        };
    }
    let counts = [sections[0].len(), sections[1].len()];
    if counts[0] == counts[1] {
        // What is after the last section that could be read, or how a length is written.
        return place(bytes, ranges, None);
    }
    let longer = usize::from(counts[1] > counts[0]);
    let more = &sections[longer][counts[1 - longer]];
    let text = format!("{}, which only one of them has,{}", called(more, names), of_what(around));
    let end = ranges[1 - longer].end;
    let mut bodies = [end..end, end..end];
    bodies[longer] = more.body.clone();
    Place {
        section: Some(text.trim_end_matches(',').to_owned()),
        offsets: bodies.clone().map(|body| body.start),
        bodies,
    }
}

/// ` of module 0 of component 1`
fn of_what(around: &[String]) -> String {
    around.iter().rev().fold(String::new(), |mut text, name| {
        let _ = write!(text, " of {name}");
        text
    })
}

fn inside(around: &[String]) -> String {
    of_what(around).trim_start_matches(" of ").to_owned()
}

fn called(section: &Section, names: &[&str]) -> String {
    match (&section.name, names.get(usize::from(section.id))) {
        (Some(name), _) => format!("the custom section `{}`", escape::text(name)),
        (None, Some(name)) => format!("the {name} section"),
        (None, None) => format!("section {}", section.id),
    }
}

fn place(bytes: [&[u8]; 2], bodies: [Range<usize>; 2], section: Option<String>) -> Place {
    let [one, other] = [0, 1].map(|side| &bytes[side][bodies[side].clone()]);
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    Place { section, offsets: bodies.clone().map(|body| body.start + same), bodies }
}

/// The sections of a module or component, as far as they can be read.
fn sections(bytes: &[u8], range: &Range<usize>) -> Vec<Section> {
    let start = (range.start + PREAMBLE_BYTES).min(range.end);
    let mut reader = BinaryReader::new(&bytes[start..range.end], start);
    let mut sections = Vec::new();
    let mut next = || -> wasmparser::Result<Section> {
        let id = reader.read_u8()?;
        let length = reader.read_var_u32()?;
        let start = reader.original_position();
        let content = reader.read_bytes(length as usize)?;
        let name = match id {
            0 => BinaryReader::new(content, start).read_string().ok().map(str::to_owned),
            _ => None,
        };
        Ok(Section { id, name, body: start..start + content.len() })
    };
    while let Ok(section) = next() {
        sections.push(section);
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasm(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[track_caller]
    fn check(one: &[u8], other: &[u8], expected: Option<&str>) {
        let place = first_difference(one, other).unwrap();
        assert_eq!(place.section.as_deref(), expected);
        let [first, second] = place.offsets;
        assert_ne!(one.get(first), other.get(second));
        // Neither order nor anything else depends on which is called the first.
        assert_eq!(first_difference(other, one).unwrap().offsets, [second, first]);
    }

    fn custom(name: &str, content: &str) -> String {
        format!("(@custom \"{name}\" \"{content}\")")
    }

    #[test]
    fn equal_bytes_have_no_difference() {
        let module = wasm("(module (memory 1))");
        assert_eq!(first_difference(&module, &module), None);
        assert_eq!(first_difference(b"", b""), None);
    }

    #[test]
    fn custom_sections_are_named() {
        let of = |content: &str| wasm(&format!("(module (memory 1) {})", custom("built\\07at", content)));
        check(&of("monday"), &of("friday"), Some("the custom section `built\\u{7}at`"));
        // Of another length: what comes first is the length of the section.
        check(&of("monday"), &of("wednesday"), Some("the custom section `built\\u{7}at`"));
        let place = first_difference(&of("monday"), &of("mohair")).unwrap();
        assert_eq!(&of("monday")[place.offsets[0]..], b"nday");
    }

    #[test]
    fn sections_of_modules_are_named() {
        let data = |text: &str| wasm(&format!("(module (memory 1) (data (i32.const 0) \"{text}\"))"));
        check(&data("a"), &data("b"), Some("the data section"));
        check(&data("a"), &data("a longer one"), Some("the data section"));
        let code = |value: u8| wasm(&format!("(module (func (export \"f\") (result i32) i32.const {value}))"));
        check(&code(1), &code(2), Some("the code section"));
    }

    #[test]
    fn nested_modules_and_components_are_counted() {
        let of = |content: &str| {
            let module = format!("(core module {})", custom("x", content));
            wasm(&format!(
                "(component (core module) (component (core module)) (component (core module) {module}) (core module))"
            ))
        };
        check(&of("one"), &of("two"), Some("the custom section `x` of module 1 of component 1"));
        check(&of("one"), &of("a longer one"), Some("the custom section `x` of module 1 of component 1"));
        let component = |name: &str| wasm(&format!("(component (core module) (import \"{name}\" (func)))"));
        check(&component("a"), &component("b"), Some("the import section"));
    }

    #[test]
    fn sections_that_one_has_alone_are_named() {
        let with = wasm(&format!("(module (memory 1) {})", custom("x", "y")));
        let without = wasm("(module (memory 1))");
        let place = first_difference(&with, &without).unwrap();
        assert_eq!(place.section.as_deref(), Some("the custom section `x`, which only one of them has"));
        let other = wasm(&format!("(module (memory 1) {})", custom("z", "y")));
        let place = first_difference(&with, &other).unwrap();
        assert_eq!(place.section.as_deref(), Some("the custom section `x` where the other has the custom section `z`"));
    }

    #[test]
    fn whatever_bytes_there_are() {
        check(b"one", b"other", None);
        check(b"", b"x", None);
        let module = wasm(&format!("(component (core module (memory 1)) {})", custom("x", "y")));
        check(&module, &wasm("(module)"), None);
        for at in 0..module.len() {
            let mut changed = module.clone();
            changed[at] ^= 0x5a;
            assert!(first_difference(&module, &changed).is_some());
            assert!(first_difference(&changed, &module[..at]).is_some());
        }
    }
}
