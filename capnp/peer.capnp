# The interfaces between a cell and its host.
#
# A cell's bootstrap capability is a `Host`. Everything else that a cell may use is reached from it, or was handed to
# it by somebody who holds it.
#
# Text is UTF-8. Peer ids are in base58 (`12D3KooW…`) and addresses are multiaddrs in their text form
# (`/ip4/127.0.0.1/tcp/2020`): the forms that people type and that programs in every language can handle as strings.

@0xd71b76b79616af3b;

struct Peer {
  # A node that this host has a connection with.

  id @0 :Text;
  # Its peer id.

  addrs @1 :List(Text);
  # The addresses at which the present connections reach it. Remote ends of incoming connections are among them, so
  # not each of them can be dialled.
}

interface Host {
  # The machine that a cell runs on, as far as the cell may see it.

  id @0 () -> (id :Text);
  # The peer id of this node.

  addrs @1 () -> (addrs :List(Text));
  # The addresses that this node listens on, each ending in `/p2p/<id>`, so that one of them is enough for another
  # node to `connect`. Sorted.

  peers @2 () -> (peers :List(Peer));
  # The nodes with which there is at least one established connection, sorted by id.

  connect @3 (id :Text, addrs :List(Text)) -> ();
  # Connects to the node `id` at one of `addrs`; these addresses are dialled and no others. A trailing `/p2p/<id>` is
  # allowed. Returns when the connection is established and the other side has proved that it is `id`, and at once
  # where there is a connection already.
  #
  # It is an error if `id` or one of the addresses is malformed (the error names it), if there are more than 16
  # addresses, if `addrs` is empty and the peer is not connected, if `id` is this node itself, if the node has as many
  # connections as it may have, or if every dial fails (the error says why for each address).

  executor @4 () -> (executor :Executor);
  # What starts other cells.
}

interface Executor {
  # Starts cells.

  runBytes @0 (wasm :Data, args :List(Text), env :List(Text)) -> (process :Process);
  # Compiles `wasm`, a component that exports `wasi:cli/run`, and starts it in a cell of its own, which has a `Host` as
  # its bootstrap capability and no files. Equal bytes are compiled once.
  #
  # `args` are the arguments after the program's name, which is always `main.wasm`. Each entry of `env` is
  # `NAME=value`; the child sees these and no others.
  #
  # The call returns when the child has been started. It is an error if `wasm` is not such a component, or imports what
  # the host does not have (the error names it), or an entry of `env` has no name or no `=`; the connection goes on.
  #
  # The child runs until it ends, is killed, or the caller's cell ends. Dropping the `Process` does not end it.

  echo @1 (message :Text) -> (response :Text);
  # Returns `message`. Costs a round trip and nothing else, so it can be used to see whether the host is there.
}

struct ExitStatus {
  # How a process ended.

  union {
    code @0 :UInt8;
    # It ended by itself with this code. 0 means success.

    trap @1 :Text;
    # It did something that WebAssembly forbids, or aborted, as a panic does. The text has the reason and the backtrace;
    # it may quote the guest's own names, so it is as trustworthy as the guest.

    killed @2 :Void;
    # Somebody called `Process.kill`, or its parent ended.
  }
}

interface Process {
  # A running or ended child.
  #
  # The three streams are 64 KiB pipes. Nobody reads stdout and stderr but the holder of this capability: a child
  # whose output is not read stops when the pipe is full, until it is read, closed, or all references to the stream
  # and to this process are dropped. Output that was written before the child ended can still be read afterwards.

  stdin @0 () -> (stream :ByteStream);
  # The stream that the child reads; writable. Each call returns the same stream.

  stdout @1 () -> (stream :ByteStream);
  # What the child writes to its standard output; readable. Each call returns the same stream.

  stderr @2 () -> (stream :ByteStream);
  # What the child writes to its standard error; readable. Each call returns the same stream.

  wait @3 () -> (status :ExitStatus);
  # Returns when the process has ended. May be called any number of times, before and after the end, by several
  # callers at once; a call that is cancelled takes nothing from the others.

  kill @4 () -> ();
  # Ends the process, whatever it is doing: computing, or waiting in a call to its host. Returns when it has ended. No
  # error where it has ended already.
}

interface ByteStream {
  # One direction of bytes with back-pressure. A stream is either readable or writable; the calls of the other kind
  # are errors.

  read @0 (maxBytes :UInt32) -> (data :Data);
  # Readable streams: waits until there is at least one byte, and returns what is there, at most `maxBytes` and at most
  # 64 KiB; larger values mean 64 KiB. Empty `data` means that the end was reached: the writer has closed or has
  # ended, and everything was read. `maxBytes` 0 returns empty data at once and says nothing about the end.
  #
  # Several reads may be pending; each byte goes to one of them.

  write @1 (data :Data) -> stream;
  # Writable streams: appends `data`, of any size that a message may have. The call is accepted when all of it is in
  # the pipe, so a reader that falls behind slows its writer down; the RPC system lets a writer run ahead by its window
  # (64 KiB) and then makes it wait. Writes stay in order.
  #
  # An error (the reader has gone or has closed) is reported to the next call on this stream.

  close @2 () -> ();
  # Writable streams: half-close. The other side reads what was written and then the end. Returns when all earlier
  # writes were accepted. Writing afterwards is an error.
  #
  # Readable streams: nothing more will be read. What is in the pipe is thrown away; a pending `read` returns empty
  # data at once, and so do later ones. The writer sees a closed stream, as with a broken pipe.
  #
  # Closing twice is no error. Dropping all references to a stream closes it.
}
