//! The terminal of whoever runs the cell.

use crate::peer_capnp::{host, terminal};

/// The terminal of whoever runs the cell. It is put back when the run ends.
#[derive(Clone)]
pub struct Terminal {
    /// The terminal itself.
    pub client: terminal::Client,
}

/// The size of a terminal, in characters. Both numbers are 0 where the terminal does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl Terminal {
    /// Asks for the terminal.
    ///
    /// # Errors
    ///
    /// When this cell was not granted it (`ww run --grant terminal`), or the connection has failed.
    pub async fn of(host: &host::Client) -> Result<Self, capnp::Error> {
        let client = host.terminal_request().send().promise.await?.get()?.get_terminal()?;
        Ok(Self { client })
    }

    /// Its size.
    ///
    /// # Errors
    ///
    /// When no standard stream of the run is a terminal, or the connection has failed.
    pub async fn size(&self) -> Result<Size, capnp::Error> {
        let response = self.client.size_request().send().promise.await?;
        let size = response.get()?;
        Ok(Size { columns: size.get_columns(), rows: size.get_rows() })
    }

    /// Waits until the size is another than `from`.
    ///
    /// # Errors
    ///
    /// Those of [`Terminal::size`].
    pub async fn resized(&self, from: Size) -> Result<Size, capnp::Error> {
        let mut request = self.client.resized_request();
        request.get().set_columns(from.columns);
        request.get().set_rows(from.rows);
        let response = request.send().promise.await?;
        let size = response.get()?;
        Ok(Size { columns: size.get_columns(), rows: size.get_rows() })
    }

    /// Switches raw mode on or off. In raw mode bytes come from stdin as they are typed, unechoed, Ctrl-C is one of them, and
    /// a new line begins with CR LF.
    ///
    /// # Errors
    ///
    /// When the stdin of the run is no terminal, the run is in the background of its terminal, or the connection has failed.
    pub async fn set_raw(&self, raw: bool) -> Result<(), capnp::Error> {
        let mut request = self.client.set_raw_request();
        request.get().set_raw(raw);
        request.send().promise.await.map(drop)
    }
}
