//! How guests are compiled, and where their native code is kept.

use std::cell::Cell;

use super::error::Failure;
use super::{env, exit_code, ui};
use crate::cell::compile_child::{ChildCompiler, CompileLimits};
use crate::cell::{CodeCache, CompilerOptions};
use crate::escape;
use crate::grant::Bytes;
use crate::ops::CompileEvent;

/// The variable with the size limit of the cache.
const LIMIT_VARIABLE: &str = "WW_CODE_CACHE_MAX";

/// The size limit where the user gives none.
const LIMIT_BYTES: u64 = 1 << 30;

/// The compiler as the surroundings of this process have it: a process of this very program, and the cache of this user.
pub(super) fn options() -> Result<CompilerOptions, Failure> {
    let child =
        env::this_program_as_it_runs().map(|program| ChildCompiler { program, limits: CompileLimits::default() });
    let child = child.map_err(|error| Failure::caused(exit_code::FAILURE, "cannot find the program ww", &error))?;
    Ok(CompilerOptions { cache: cache()?, child: Some(child) })
}

/// The cache, if there is a place for it that can be trusted. Without one all goes on, if more slowly.
fn cache() -> Result<Option<CodeCache>, Failure> {
    let limit = limit()?;
    let Some(folder) = env::code_cache_folder().filter(|_| limit > 0) else { return Ok(None) };
    match CodeCache::open(&folder, limit) {
        Ok(cache) => Ok(Some(cache)),
        Err(error) => {
            let why = super::error::chain(&error).join(": ");
            ui::progress(&format!("warning: {why}; each run compiles anew"));
            Ok(None)
        }
    }
}

fn limit() -> Result<u64, Failure> {
    let Some(text) = env::variable(LIMIT_VARIABLE) else { return Ok(LIMIT_BYTES) };
    let size: Result<Bytes, _> = text.parse();
    size.map(|size| size.0).map_err(|error| {
        let message = format!("{LIMIT_VARIABLE} is `{}`: {error}", escape::text(&text));
        Failure::message(exit_code::USAGE, message).with_help("such as 500MiB, or 0 to keep no compiled code")
    })
}

/// Shows that something is being compiled, where that takes long.
pub(super) struct Status<'a> {
    name: &'a str,
    is_shown: Cell<bool>,
}

impl<'a> Status<'a> {
    /// Calls it `name`, which is shown as it is.
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, is_shown: Cell::new(false) }
    }

    pub(super) fn show(&self, event: CompileEvent) {
        match event {
            CompileEvent::TakesLong => {
                let line = format!("compiling {}", self.name);
                if env::stderr_is_screen() {
                    ui::transient(&line);
                    self.is_shown.set(true);
                } else {
                    ui::progress(&line);
                }
            }
            CompileEvent::Ended => self.clear(),
        }
    }

    fn clear(&self) {
        if self.is_shown.take() {
            ui::transient("");
        }
    }
}

impl Drop for Status<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
