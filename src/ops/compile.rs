//! Compiling the program of an image before anybody runs it.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use super::RunError;
use super::image::{self, ImageSource, read_program};
use crate::cell::{Compiler, CompilerOptions, ComponentError, Engine, EngineOptions};
use crate::wasm_binary::SIZE_BYTES_MAX;
use crate::wetfile::MAIN_PATH;

/// After this time a person wonders whether anything goes on.
const LONG: Duration = Duration::from_millis(300);

/// What there is to be said of a compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileEvent {
    /// It goes on for some time already.
    TakesLong,
    /// One that took long has come to its end.
    Ended,
}

/// How often somebody who waits for a compiler looks whether to go on waiting.
const POLL: Duration = Duration::from_millis(20);

/// Compiles the program of the image at `image`, so that the next run finds it in the cache. Blocks; gives up soon after
/// `stopped` says so.
///
/// # Errors
///
/// As for [`run`](super::run()): the image cannot be run. [`ComponentError::Stopped`] where it was stopped.
pub fn compile(
    image: &Path,
    options: CompilerOptions,
    events: &dyn Fn(CompileEvent),
    stopped: &dyn Fn() -> bool,
) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(RunError::Thread)?;
    let wasm = runtime.block_on(async {
        let opened = image::open(ImageSource::Folder(image.to_owned()), image).await?;
        read_program(&opened, image, SIZE_BYTES_MAX).await
    })?;
    let engine = Engine::new(EngineOptions::default())?;
    let compiler = Compiler::with_options(engine, runtime.handle().clone(), options);
    let compiled = runtime.block_on(async {
        tokio::select! {
            compiled = with_events(compiler.compile(wasm), events) => compiled,
            // Nobody waits for the compiler any more, which ends it.
            () = until(stopped) => Err(ComponentError::Stopped),
        }
    });
    compiled.map_err(|source| RunError::Component { path: image.join(MAIN_PATH), source })?;
    Ok(())
}

/// Waits until something is so.
async fn until(is_so: &dyn Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(POLL).await;
    }
}

/// Waits for something, and says so if that takes long.
pub(super) async fn with_events<T>(work: impl Future<Output = T>, events: &dyn Fn(CompileEvent)) -> T {
    let mut work = pin!(work);
    match tokio::time::timeout(LONG, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            events(CompileEvent::TakesLong);
            let done = work.await;
            events(CompileEvent::Ended);
            done
        }
    }
}
