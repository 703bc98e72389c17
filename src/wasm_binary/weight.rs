//! What running a component takes of the host, told before it is run.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef, Encoding,
    Instance, Parser, Payload,
};

/// What running a component takes of the host's memory, beside the memories and tables that it has; somewhat more than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// What one instance takes of the core module that takes most, in bytes.
    pub instance_bytes: u64,
    /// What all instances of core modules take, in bytes, those of components included that are instantiated in it.
    pub instances_bytes: u64,
    /// What else there is in it and in components that it instantiates takes, each as often as that is done, in bytes.
    pub context_bytes: u64,
}

impl Weight {
    /// Whether there is no telling what it takes: it instantiates a component that it does not have itself.
    pub fn is_boundless(&self) -> bool {
        self.context_bytes == u64::MAX
    }
}

/// What a function, a table or an import takes of an instance, in bytes, which is less than 48 in wasmtime 48.
const ITEM_BYTES: u64 = 64;

/// What a global takes.
const GLOBAL_BYTES: u64 = 32;

/// What an element of a segment takes, which has a byte in the binary at least.
const ELEMENT_BYTES: u64 = 24;

/// What a function takes that is lifted or lowered, or that the component model has, in bytes: a trampoline and what belongs to
/// it; and where one component calls another its part of an adapter, which is an instance that the binary does not have, with
/// some ten imports.
const CANONICAL_BYTES: u64 = 1024;

/// What an instance of a component takes, in bytes, beside what is in it: tables of handles, and flags.
const COMPONENT_INSTANCE_BYTES: u64 = 512;

/// What a component takes each time that it is instantiated.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    /// The instances of core modules that are known, in bytes.
    known_bytes: u64,
    /// How many there are of others.
    unknown: u64,
    context_bytes: u64,
}

impl Sum {
    /// Of a component that is not known.
    const BOUNDLESS: Self = Self { known_bytes: u64::MAX, unknown: 0, context_bytes: u64::MAX };

    fn add(&mut self, other: Self) {
        self.known_bytes = self.known_bytes.saturating_add(other.known_bytes);
        self.unknown = self.unknown.saturating_add(other.unknown);
        self.context_bytes = self.context_bytes.saturating_add(other.context_bytes);
    }

    fn add_context(&mut self, count: u32, bytes: u64) {
        self.context_bytes = self.context_bytes.saturating_add(u64::from(count) * bytes);
    }

    /// Adds an instance of a module that takes so much, if that is known.
    fn add_module(&mut self, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => self.known_bytes = self.known_bytes.saturating_add(bytes),
            None => self.unknown = self.unknown.saturating_add(1),
        }
    }
}

/// A component that is being read, with its index spaces as far as they matter.
#[derive(Default)]
struct Open {
    /// What its core modules take; `None` for those that it does not have itself.
    modules: Vec<Option<u64>>,
    /// What its components take.
    components: Vec<Sum>,
    sum: Sum,
}

impl Open {
    fn module(&self, index: u32) -> Option<u64> {
        self.modules.get(index as usize).copied().flatten()
    }

    fn component(&self, index: u32) -> Sum {
        self.components.get(index as usize).copied().unwrap_or(Sum::BOUNDLESS)
    }

    /// Notes that something of a kind has the next index.
    fn push(&mut self, kind: ComponentExternalKind, module: Option<u64>, component: Sum) {
        match kind {
            ComponentExternalKind::Module => self.modules.push(module),
            ComponentExternalKind::Component => self.components.push(component),
            _ => {}
        }
    }
}

/// Weighs a component that is valid; of any other what can be read.
pub fn weight(wasm: &[u8]) -> Weight {
    let mut instance_bytes = 0_u64;
    let mut open: Vec<Open> = Vec::new();
    // The core module that is being read; there are none inside of others.
    let mut module: Option<u64> = None;
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match (payload, &mut module) {
            (Payload::Version { encoding: Encoding::Module, .. }, _) => module = Some(0),
            (Payload::Version { .. }, _) => open.push(Open::default()),
            (Payload::End(_), Some(bytes)) => {
                let bytes = *bytes;
                module = None;
                instance_bytes = instance_bytes.max(bytes);
                if let Some(component) = open.last_mut() {
                    component.modules.push(Some(bytes));
                }
            }
            (Payload::End(_), None) if open.len() > 1 => {
                let sum = open.pop().unwrap_or_default().sum;
                if let Some(component) = open.last_mut() {
                    component.components.push(sum);
                }
            }
            (payload, Some(bytes)) => *bytes = bytes.saturating_add(module_bytes(&payload)),
            (payload, None) => read_component(&mut open, payload),
        }
    }
    let sum = open.first().map_or_else(Sum::default, |root| root.sum);
    Weight {
        instance_bytes,
        instances_bytes: sum.known_bytes.saturating_add(sum.unknown.saturating_mul(instance_bytes)),
        context_bytes: sum.context_bytes,
    }
}

/// What a section of a core module takes of each of its instances.
fn module_bytes(section: &Payload<'_>) -> u64 {
    match section {
        Payload::ImportSection(section) => u64::from(section.count()) * ITEM_BYTES,
        Payload::FunctionSection(section) => u64::from(section.count()) * ITEM_BYTES,
        Payload::TableSection(section) => u64::from(section.count()) * ITEM_BYTES,
        Payload::TagSection(section) => u64::from(section.count()) * ITEM_BYTES,
        Payload::GlobalSection(section) => u64::from(section.count()) * GLOBAL_BYTES,
        Payload::ElementSection(section) => section.range().len() as u64 * ELEMENT_BYTES,
        _ => 0,
    }
}

/// Reads a section of the innermost component.
fn read_component(open: &mut [Open], section: Payload<'_>) {
    let Some((this, outer)) = open.split_last_mut() else { return };
    match section {
        Payload::InstanceSection(section) => {
            for instance in section.into_iter().map_while(Result::ok) {
                if let Instance::Instantiate { module_index, .. } = instance {
                    this.sum.add_module(this.module(module_index));
                }
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section.into_iter().map_while(Result::ok) {
                if let ComponentInstance::Instantiate { component_index, .. } = instance {
                    this.sum.add(this.component(component_index));
                    this.sum.add_context(1, COMPONENT_INSTANCE_BYTES);
                }
            }
        }
        Payload::ComponentCanonicalSection(section) => this.sum.add_context(section.count(), CANONICAL_BYTES),
        Payload::ComponentTypeSection(section) => this.sum.add_context(section.count(), ITEM_BYTES),
        Payload::ComponentImportSection(section) => {
            for import in section.into_iter().map_while(Result::ok) {
                match import.ty {
                    ComponentTypeRef::Module(_) => this.modules.push(None),
                    ComponentTypeRef::Component(_) => this.components.push(Sum::BOUNDLESS),
                    _ => {}
                }
            }
        }
        Payload::ComponentExportSection(section) => {
            // What is exported has another index from then on.
            for export in section.into_iter().map_while(Result::ok) {
                this.push(export.kind, this.module(export.index), this.component(export.index));
            }
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section.into_iter().map_while(Result::ok) {
                match alias {
                    ComponentAlias::InstanceExport { kind, .. } => this.push(kind, None, Sum::BOUNDLESS),
                    ComponentAlias::Outer { kind, count, index } => {
                        let of = match count {
                            0 => Some(&*this),
                            _ => outer.iter().rev().nth(count as usize - 1),
                        };
                        match kind {
                            ComponentOuterAliasKind::CoreModule => {
                                let bytes = of.and_then(|of| of.module(index));
                                this.modules.push(bytes);
                            }
                            ComponentOuterAliasKind::Component => {
                                let sum = of.map_or(Sum::BOUNDLESS, |of| of.component(index));
                                this.components.push(sum);
                            }
                            _ => {}
                        }
                    }
                    ComponentAlias::CoreInstanceExport { .. } => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 4 * ITEM_BYTES + GLOBAL_BYTES;

    #[track_caller]
    fn check(text: &str, instance_bytes: u64, instances_bytes: u64, context_bytes: u64) {
        let expected = Weight { instance_bytes, instances_bytes, context_bytes };
        assert_eq!(weight(&wat::parse_str(text).unwrap()), expected, "{text}");
    }

    #[test]
    fn what_instances_take_is_weighed() {
        check("(component)", 0, 0, 0);
        check("(component (core module))", 0, 0, 0);
        check(
            r#"(component
                (core module $small (func))
                (core module $large (global i32 (i32.const 0)) (func) (func) (func) (table 1 funcref))
                (core instance (instantiate $small))
                (component (core module (func (export "f"))) (core instance $i (instantiate 0))
                    (func (canon lift (core func $i "f"))))
                (core instance (instantiate $large))
                (core instance (instantiate $large)))"#,
            LARGE,
            2 * LARGE + ITEM_BYTES,
            0,
        );
        assert_eq!(weight(b"no wasm"), Weight::default());
    }

    #[test]
    fn what_components_instantiate_counts_as_often_as_they_are_instantiated() {
        let inner = r#"(component $c (core module (func (export "f")) (func)) (core instance $i (instantiate 0))
            (func (canon lift (core func $i "f"))))"#;
        let instances = "(instance (instantiate $c))".repeat(250);
        // A type, of the function that is lifted, is told as well.
        let each = CANONICAL_BYTES + ITEM_BYTES + COMPONENT_INSTANCE_BYTES;
        check(&format!("(component {inner} {instances})"), 2 * ITEM_BYTES, 250 * 2 * ITEM_BYTES, 250 * each);
        // One inside the other it is the product.
        let nested = format!(
            "(component {inner} (component $d (alias outer 1 $c (component $c)) {instances}) \
            (instance (instantiate $d)) (instance (instantiate $d)))"
        );
        let context = 2 * (250 * each + COMPONENT_INSTANCE_BYTES);
        check(&nested, 2 * ITEM_BYTES, 2 * 250 * 2 * ITEM_BYTES, context);
        let mut deep = "(component $c)".to_owned();
        for _ in 0..8 {
            deep = format!("(component $c {deep} {})", "(instance (instantiate $c))".repeat(1000));
        }
        assert!(weight(&wat::parse_str(deep).unwrap()).is_boundless());
    }

    #[test]
    fn what_has_another_index_weighs_the_same() {
        let large = "(core module $large (global i32 (i32.const 0)) (func) (func) (func) (table 1 funcref))";
        // The first module of the inner component is that of the outer one, and the second one its own.
        let aliased = format!(
            "(component {large} (component $c (alias outer 1 $large (core module $alias)) (core module (func))
                (core instance (instantiate $alias))) (instance (instantiate $c)))"
        );
        check(&aliased, LARGE, LARGE, COMPONENT_INSTANCE_BYTES);
        let imported = format!(
            r#"(component (component $c (import "m" (core module $m)) (core module (func))
                (core instance (instantiate $m))) {large} (instance (instantiate $c (with "m" (core module $large)))))"#
        );
        check(&imported, LARGE, LARGE, COMPONENT_INSTANCE_BYTES);
        let exported = format!(
            r#"(component {large} (core module $small (func)) (export $e "m" (core module $large))
                (core instance (instantiate $e)))"#
        );
        check(&exported, LARGE, LARGE, 0);
    }

    #[test]
    fn components_from_elsewhere_cannot_be_weighed() {
        for text in [
            r#"(component (component $c (import "d" (component $d)) (component) (instance (instantiate $d))) (component $e)
                (instance (instantiate $c (with "d" (component $e)))))"#,
            r#"(component (component $c (component $d) (export "d" (component $d))) (instance $i (instantiate $c))
                (alias export $i "d" (component $d)) (instance (instantiate $d)))"#,
        ] {
            let weight = weight(&wat::parse_str(text).unwrap());
            assert!(weight.is_boundless(), "{weight:?}");
        }
    }
}
