//! What a `ByteStream` promises.

use std::error::Error;
use std::io::{self, Write};
use std::time::Instant;

use futures::future;
use futures::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use ww_guest::peer_capnp::byte_stream;
use ww_guest::{ByteReader, ByteWriter, CHUNK_BYTES, Status};

use crate::calls::echo;
use crate::children::{Parent, stdin, stdout};
use crate::{Outcome, require};

pub(crate) async fn throughput(parent: &Parent, size_bytes: u64) -> Outcome {
    timed("into a child", size_bytes, into(parent, size_bytes)).await?;
    timed("out of a child", size_bytes, out_of(parent, size_bytes)).await?;
    timed("through a child and back", size_bytes, through(parent, "copy", size_bytes)).await?;
    Ok(format!("{size_bytes} bytes"))
}

async fn timed(what: &str, size_bytes: u64, moved: impl Future<Output = Result<(), Box<dyn Error>>>) -> io::Result<()> {
    let start = Instant::now();
    moved.await.map_err(|error| io::Error::other(error.to_string()))?;
    let mib_per_second = size_bytes as f64 / (1 << 20) as f64 / start.elapsed().as_secs_f64();
    writeln!(io::stderr(), "{what}: {mib_per_second:.0} MiB/s")
}

/// Sends bytes to a child that counts them.
async fn into(parent: &Parent, size_bytes: u64) -> Result<(), Box<dyn Error>> {
    let size = size_bytes.to_string();
    let mut child = parent.spawn(&["count", &size]).await?;
    let input = stdin(&mut child)?;
    send(input, size_bytes).await?;
    require(child.wait().await? == Status::Code(0), "the child has counted them")
}

/// Counts the bytes that a child writes.
async fn out_of(parent: &Parent, size_bytes: u64) -> Result<(), Box<dyn Error>> {
    let size = size_bytes.to_string();
    let mut child = parent.spawn(&["fill", &size]).await?;
    let read_bytes = count(&mut stdout(&mut child)?).await?;
    require(read_bytes == size_bytes, format!("the child writes {size_bytes} bytes, not {read_bytes}"))?;
    require(child.wait().await? == Status::Code(0), "the child ends well")
}

/// Reads to the end.
pub(crate) async fn count(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<u64> {
    let mut read_bytes = 0;
    loop {
        let block_bytes = input.fill_buf().await?.len();
        if block_bytes == 0 {
            return Ok(read_bytes);
        }
        input.consume_unpin(block_bytes);
        read_bytes += block_bytes as u64;
    }
}

pub(crate) async fn stderr_full(parent: &Parent) -> Outcome {
    through(parent, "noisy-cat", 1 << 20).await?;
    Ok("1 MiB".to_owned())
}

/// Sends bytes through a child that copies, whose stderr is not read, and checks that they come back.
async fn through(parent: &Parent, behaviour: &str, size_bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut child = parent.spawn(&[behaviour]).await?;
    let (input, output) = (stdin(&mut child)?, stdout(&mut child)?);
    future::try_join(send(input, size_bytes), receive(output, size_bytes)).await?;
    require(child.wait().await? == Status::Code(0), "the child ends well")
}

/// What is sent: the numbers from 0 to [`PERIOD`], again and again.
struct Pattern(Vec<u8>);

/// No divisor of any buffer size, so that bytes at the wrong position are seen.
const PERIOD: usize = 251;

impl Pattern {
    fn new() -> Self {
        Self((0..PERIOD).cycle().take(CHUNK_BYTES + PERIOD).map(|number| number as u8).collect())
    }

    /// The bytes from `position` on, at most [`CHUNK_BYTES`].
    fn at(&self, position: u64, size_bytes: u64) -> &[u8] {
        let start = (position % PERIOD as u64) as usize;
        &self.0[start..start + size_bytes.min(CHUNK_BYTES as u64) as usize]
    }
}

/// Compares words, since `memcmp` compares bytes in WebAssembly, and would be what is measured.
fn equal(left: &[u8], right: &[u8]) -> bool {
    let (left_words, left_rest) = left.as_chunks::<8>();
    let (right_words, right_rest) = right.as_chunks::<8>();
    let same = |(left, right): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*left) == u64::from_ne_bytes(*right);
    left.len() == right.len() && left_words.iter().zip(right_words).all(same) && left_rest == right_rest
}

async fn send(mut input: ByteWriter, size_bytes: u64) -> Result<(), Box<dyn Error>> {
    let pattern = Pattern::new();
    let mut position = 0;
    while position < size_bytes {
        let block = pattern.at(position, size_bytes - position);
        input.write_all(block).await?;
        position += block.len() as u64;
    }
    Ok(input.close().await?)
}

async fn receive(mut output: ByteReader, size_bytes: u64) -> Result<(), Box<dyn Error>> {
    let pattern = Pattern::new();
    let mut position = 0;
    loop {
        let block = output.fill_buf().await?;
        if block.is_empty() {
            return require(position == size_bytes, format!("{size_bytes} bytes come back, not {position}"));
        }
        let read_bytes = block.len();
        let same = equal(block, pattern.at(position, read_bytes as u64));
        require(same, format!("{read_bytes} bytes from {position} on come back as they were sent"))?;
        output.consume_unpin(read_bytes);
        position += read_bytes as u64;
    }
}

pub(crate) async fn never_read(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["flood-stdout"]).await?;
    // Once something was read, the child goes on until the pipe is full again.
    let output = stdout(&mut child)?;
    require(read(output.client(), 1).await? == 1, "the child writes")?;
    for _ in 0..1000 {
        echo(&parent.executor, "still there").await?;
    }
    child.kill().await?;
    require(child.wait().await? == Status::Killed, "the child waited")?;
    Ok(Status::Killed.to_string())
}

pub(crate) async fn huge_read(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["flood-stdout"]).await?;
    let output = stdout(&mut child)?;
    let read_bytes = read(output.client(), u32::MAX).await?;
    require((1..=CHUNK_BYTES).contains(&read_bytes), format!("a read returns 1 to 65536 bytes, not {read_bytes}"))?;
    require(read(output.client(), 0).await? == 0, "a read of nothing returns nothing")?;
    require(read(output.client(), 5).await? <= 5, "a read returns no more than is asked for")?;
    child.kill().await?;
    Ok(format!("{read_bytes} bytes"))
}

async fn read(stream: &byte_stream::Client, max_bytes: u32) -> Result<usize, Box<dyn Error>> {
    let mut request = stream.read_request();
    request.get().set_max_bytes(max_bytes);
    let response = request.send().promise.await?;
    Ok(response.get()?.get_data()?.len())
}

async fn close(stream: &byte_stream::Client) -> Result<(), Box<dyn Error>> {
    stream.close_request().send().promise.await?;
    Ok(())
}

pub(crate) async fn read_after_close(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["cat"]).await?;
    let output = stdout(&mut child)?;
    // Both are sent in this order; the child writes nothing yet.
    let pending = read(output.client(), 10);
    let (pending, closed) = future::join(pending, close(output.client())).await;
    closed?;
    require(pending? == 0, "the pending read ends")?;
    require(read(output.client(), 10).await? == 0, "so do later ones")?;
    close(output.client()).await?;
    child.kill().await?;
    Ok("nothing was read".to_owned())
}

pub(crate) async fn half_close(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["cat"]).await?;
    let mut input = stdin(&mut child)?;
    // The same one.
    let stream = child.process.stdin_request().send().pipeline.get_stream();
    input.write_all(b"the last words").await?;
    input.close().await?;
    close(&stream).await?;
    let mut late = ByteWriter::new(stream.clone());
    let late = async {
        late.write_all(b"too late").await?;
        late.close().await
    };
    require(late.await.is_err(), "writing after closing is an error")?;
    let output = child.wait_with_output().await?;
    require(output.stdout == b"the last words", "what was written before is read")?;
    require(output.status == Status::Code(0), "the child ends well")?;
    Ok(format!("{} bytes", output.stdout.len()))
}

pub(crate) async fn broken_pipe(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["no-read"]).await?;
    require(child.wait().await? == Status::Code(0), "the child ends well")?;
    let mut input = stdin(&mut child)?;
    let written = async {
        input.write_all(&vec![0; 4 * CHUNK_BYTES]).await?;
        input.close().await
    };
    let error = written.await.err().ok_or("a dead child was written to")?;
    Ok(error.to_string())
}

pub(crate) async fn output_after_end(parent: &Parent) -> Outcome {
    let child = parent.spawn(&["flood-stdout", "60000"]).await?;
    require(child.wait().await? == Status::Code(0), "a child whose output fits into the pipe ends")?;
    let mut bytes = Vec::new();
    let stream = child.process.stdout_request().send().pipeline.get_stream();
    ByteReader::new(stream).read_to_end(&mut bytes).await?;
    require(bytes.len() == 60_000, format!("60000 bytes are left, not {}", bytes.len()))?;
    Ok("60000 bytes".to_owned())
}

pub(crate) async fn wrong_direction(parent: &Parent) -> Outcome {
    let mut child = parent.spawn(&["cat"]).await?;
    let (input, output) = (stdin(&mut child)?, stdout(&mut child)?);
    require(read(input.client(), 10).await.is_err(), "stdin cannot be read")?;
    let mut wrong = ByteWriter::new(output.client().clone());
    let written = async {
        wrong.write_all(b"x").await?;
        wrong.close().await
    };
    require(written.await.is_err(), "stdout cannot be written")?;
    child.kill().await?;
    Ok("both are errors".to_owned())
}
