//! Compiling the program of an image before anybody runs it.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use super::RunError;
use super::image::{self, ImageSource, read_program};
use crate::cell::{Compiler, CompilerOptions, Engine, EngineOptions};
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

/// Compiles the program of the image at `image`, so that the next run finds it in the cache. Blocks.
///
/// # Errors
///
/// As for [`run`](super::run()): the image cannot be run.
pub fn compile(image: &Path, options: CompilerOptions, events: &dyn Fn(CompileEvent)) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(RunError::Thread)?;
    let wasm = runtime.block_on(async {
        let opened = image::open(ImageSource::Folder(image.to_owned()), image).await?;
        read_program(&opened, image, SIZE_BYTES_MAX).await
    })?;
    let engine = Engine::new(EngineOptions::default())?;
    let compiler = Compiler::with_options(engine, runtime.handle().clone(), options);
    let compiled = runtime.block_on(with_events(compiler.compile(wasm), events));
    compiled.map_err(|source| RunError::Component { path: image.join(MAIN_PATH), source })?;
    Ok(())
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
