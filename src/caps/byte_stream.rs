//! `ByteStream`: one end of a pipe.

use std::rc::Rc;
use std::sync::Arc;

use capnp::Error;
use ww_schema::peer_capnp::byte_stream;

use crate::cell::{Admission, CAPACITY, PipeReader, PipeWriter};

/// The stream that reads from `pipe`, of a child that has this room. Dropping its last reference closes the pipe.
pub(super) fn readable(pipe: PipeReader, room: Arc<Admission>) -> byte_stream::Client {
    capnp_rpc::new_client(Readable(pipe, room))
}

/// The stream that writes to `pipe`, of a child that has this room. Dropping its last reference closes the pipe.
pub(super) fn writable(pipe: PipeWriter, room: Arc<Admission>) -> byte_stream::Client {
    capnp_rpc::new_client(Writable(pipe, room))
}

struct Readable(PipeReader, #[expect(dead_code, reason = "is held")] Arc<Admission>);

impl byte_stream::Server for Readable {
    async fn read(
        self: Rc<Self>,
        params: byte_stream::ReadParams,
        mut results: byte_stream::ReadResults,
    ) -> Result<(), Error> {
        // What the caller names is never allocated: a pipe has no more than its capacity to give.
        let size_max = (params.get()?.get_max_bytes() as usize).min(CAPACITY);
        if size_max > 0 {
            results.get().set_data(&self.0.read(size_max).await);
        }
        Ok(())
    }

    async fn write(self: Rc<Self>, _: byte_stream::WriteParams) -> Result<(), Error> {
        Err(Error::failed("this stream is readable, not writable".into()))
    }

    async fn close(self: Rc<Self>, _: byte_stream::CloseParams, _: byte_stream::CloseResults) -> Result<(), Error> {
        self.0.close();
        Ok(())
    }
}

struct Writable(PipeWriter, #[expect(dead_code, reason = "is held")] Arc<Admission>);

impl byte_stream::Server for Writable {
    async fn read(self: Rc<Self>, _: byte_stream::ReadParams, _: byte_stream::ReadResults) -> Result<(), Error> {
        Err(Error::failed("this stream is writable, not readable".into()))
    }

    async fn write(self: Rc<Self>, params: byte_stream::WriteParams) -> Result<(), Error> {
        let data = params.get()?.get_data()?;
        self.0.write_all(data).await.map_err(|closed| Error::failed(closed.to_string()))
    }

    async fn close(self: Rc<Self>, _: byte_stream::CloseParams, _: byte_stream::CloseResults) -> Result<(), Error> {
        self.0.close();
        Ok(())
    }
}
