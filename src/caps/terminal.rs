//! `Terminal`: the terminal of whoever runs the cell.

use std::rc::Rc;
use std::sync::Arc;

use capnp::Error;
use tokio::sync::Mutex;
use ww_schema::peer_capnp::terminal;

use super::executor::failed;
use crate::terminal::{Size, Terminal};

/// The capability over `terminal`.
pub(super) fn terminal(terminal: Terminal) -> terminal::Client {
    capnp_rpc::new_client(Server { terminal, turn: Arc::default() })
}

struct Server {
    terminal: Terminal,
    /// Held by the one thread that sets a mode, however many calls there are.
    turn: Arc<Mutex<()>>,
}

impl terminal::Server for Server {
    async fn size(self: Rc<Self>, _: terminal::SizeParams, mut results: terminal::SizeResults) -> Result<(), Error> {
        let size = self.terminal.size().map_err(|error| failed(&error))?;
        results.get().set_columns(size.columns);
        results.get().set_rows(size.rows);
        Ok(())
    }

    async fn resized(
        self: Rc<Self>,
        params: terminal::ResizedParams,
        mut results: terminal::ResizedResults,
    ) -> Result<(), Error> {
        let from = params.get()?;
        let from = Size { columns: from.get_columns(), rows: from.get_rows() };
        let size = self.terminal.resized(from).await.map_err(|error| failed(&error))?;
        results.get().set_columns(size.columns);
        results.get().set_rows(size.rows);
        Ok(())
    }

    async fn set_raw(self: Rc<Self>, params: terminal::SetRawParams, _: terminal::SetRawResults) -> Result<(), Error> {
        let raw = params.get()?.get_raw();
        let terminal = self.terminal.clone();
        let turn = self.turn.clone().lock_owned().await;
        // The first time a process is started, for which other cells of the thread need not wait.
        let set = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            terminal.set_raw(raw)
        });
        let set = set.await;
        set.map_err(|_| Error::failed("the host is shutting down".into()))?.map_err(|error| failed(&error))
    }
}
