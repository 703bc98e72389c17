//! `ByteStream`: one end of a pipe.

use std::rc::Rc;

use capnp::Error;
use ww_schema::peer_capnp::byte_stream;

use crate::cell::{Held, PIECE_BYTES, PipeReader, PipeWriter};

/// The stream that reads from `pipe`, for which there is `room`. Dropping its last reference closes the pipe.
pub(super) fn readable(pipe: PipeReader, room: Rc<Held>) -> byte_stream::Client {
    capnp_rpc::new_client(Readable { pipe, _room: room })
}

/// The stream that writes to `pipe`, for which there is `room`. Dropping its last reference closes the pipe.
pub(super) fn writable(pipe: PipeWriter, room: Held) -> byte_stream::Client {
    capnp_rpc::new_client(Writable { pipe, _room: room })
}

struct Readable {
    pipe: PipeReader,
    _room: Rc<Held>,
}

impl byte_stream::Server for Readable {
    async fn read(
        self: Rc<Self>,
        params: byte_stream::ReadParams,
        mut results: byte_stream::ReadResults,
    ) -> Result<(), Error> {
        // What the caller names is never allocated: a pipe has no more than its capacity to give.
        let size_max = (params.get()?.get_max_bytes() as usize).min(PIECE_BYTES);
        if size_max > 0 {
            results.get().set_data(&self.pipe.read(size_max).await);
        }
        Ok(())
    }

    async fn write(self: Rc<Self>, _: byte_stream::WriteParams) -> Result<(), Error> {
        Err(Error::failed("this stream is readable, not writable".into()))
    }

    async fn close(self: Rc<Self>, _: byte_stream::CloseParams, _: byte_stream::CloseResults) -> Result<(), Error> {
        self.pipe.close();
        Ok(())
    }
}

struct Writable {
    pipe: PipeWriter,
    _room: Held,
}

impl byte_stream::Server for Writable {
    async fn read(self: Rc<Self>, _: byte_stream::ReadParams, _: byte_stream::ReadResults) -> Result<(), Error> {
        Err(Error::failed("this stream is writable, not readable".into()))
    }

    async fn write(self: Rc<Self>, params: byte_stream::WriteParams) -> Result<(), Error> {
        let data = params.get()?.get_data()?;
        self.pipe.write_all(data).await.map_err(|closed| Error::failed(closed.to_string()))
    }

    async fn close(self: Rc<Self>, _: byte_stream::CloseParams, _: byte_stream::CloseResults) -> Result<(), Error> {
        self.pipe.close();
        Ok(())
    }
}
