# The interfaces between a cell and its host.
#
# The bootstrap capability of a cell that a person runs is a `Host`, that of a child what its parent hands it. Everything
# else that a cell may use is reached from there, or was handed to it by somebody who holds it.
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
  # addresses, if `addrs` is empty and the peer is not connected, if `id` is this node itself, if the node, or
  # this cell, has as many connections or calls under way as it may have, or if every dial fails (the error says why for each address).

  executor @4 () -> (executor :Executor);
  # What starts other cells.

  restrict @5 (capability :Capability, methods :List(Method)) -> (capability :Capability);
  # Returns `capability` as far as `methods` go: a call of another method is an error that names it ("not permitted"). The
  # list holds for every capability that is got through the returned one, too, in a result or as a promise, however many
  # calls away: what the holder is to do with a `Process` must be in the list as well as what it is to do with an
  # `Executor`.
  #
  # A capability that the holder passes in can be called back with any method; what it is given in such a call is
  # restricted. One that comes back to where it came from stays restricted.
  #
  # Waits where `capability` is the promised result of a call that has not returned. It is an error if it is null, if
  # `methods` names more than 1024, or if there are 16 restrictions around the capability already; and each capability
  # that is held through one counts for the limit `handles` of the cell that made it, of which a quarter can be used up
  # through each.
  #
  # Whoever may call `Executor.runBytes` can start a child that has a whole `Host`. A restricted executor that is to give
  # away less has `Executor.load` and `Module.spawn`.

  revocable @6 (capability :Capability) -> (capability :Capability, revoker :Revoker);
  # Returns `capability` in a form that can be taken away again. Errors and limits are those of `restrict`.

  terminal @7 () -> (terminal :Terminal);
  # The terminal of whoever runs the cell. It is an error if the cell may not control it; the error names what grants that.
}

interface Terminal {
  # The terminal of whoever runs a cell. Whatever is done to it, it is put back when the cell ends that the `Host` belongs
  # to.

  size @0 () -> (columns :UInt16, rows :UInt16);
  # Its size in characters. Both are 0 where the terminal does not know. It is an error if no standard stream of the run is a
  # terminal.

  resized @1 (columns :UInt16, rows :UInt16) -> (columns :UInt16, rows :UInt16);
  # Returns the size when it is another than the one given: at once, or after a change. Errors are those of `size`.

  setRaw @2 (raw :Bool) -> ();
  # Switches raw mode on or off: bytes come as they are typed, without echo and without the end of a line; Ctrl-C, Ctrl-Z and
  # Ctrl-D are bytes like others; and what is written is not changed on its way, so a new line begins with CR LF. It stays as
  # it is until it is switched again, or the run ends. While the run is stopped (SIGTSTP), and in the background, it is off.
  #
  # It is an error if the run's standard input is no terminal, or to switch it on in the background.
}

struct Method {
  # Methods of an interface.

  interface @0 :UInt64;
  # The number of the interface in its schema, after the `@`, or as the schema compiler computes it.

  union {
    method @1 :UInt16;
    # The one with this number.

    all @2 :Void;
    # All that it has, and will have.
  }
}

interface Revoker {
  # Takes a capability away from all who hold it.

  revoke @0 () -> ();
  # From now on each call of the capability fails with "revoked", and so does each of whatever was got through it, and each
  # call back of what was passed in. Calls that are on their way fail, too; what they have done stays done. No error where
  # it was revoked before. Dropping a `Revoker` revokes nothing. Children that were started through a revoked `Executor` are
  # those of the cell that it belongs to; they run on, and nobody who had it holds them any more.
}

interface Executor {
  # Starts cells.

  runBytes @0 (wasm :Data, args :List(Text), env :List(Text)) -> (process :Process, stdin :ByteStream, stdout :ByteStream,
      stderr :ByteStream);
  # Compiles `wasm`, a component that exports `wasi:cli/run`, and starts it in a cell of its own, which has a `Host` as
  # its bootstrap capability and no files but a `/tmp` of its own. Equal bytes are compiled once. That `Host` is one of the
  # child's own: its `executor` starts the child's children, and it cannot `connect`.
  #
  # `args` are the arguments after the program's name, which is always `main.wasm`. Each entry of `env` is
  # `NAME=value`; the child sees these and no others. Either may have 4096 entries, and 512 KiB.
  #
  # The call returns when the child has been started, with its streams, which are those that `Process` has methods for. It is
  # an error if `wasm` is not such a component, or imports what
  # the host does not have (the error names it), or an entry of `env` has no name or no `=`; the connection goes on.
  #
  # The child runs until it ends, is killed, or the cell ends to which this executor belongs. Dropping the `Process` does
  # not end it. One that has ended counts for the limit `children` until nobody holds its `Process` and its streams.

  echo @1 (message :Text) -> (response :Text);
  # Returns `message`. Costs a round trip and nothing else, so it can be used to see whether the host is there.

  load @2 (wasm :Data, cid :Text) -> (module :Module);
  # Compiles `wasm`, as `runBytes` does, and starts nothing. It is an error if it is no such component, or if the cell to
  # which this executor belongs has 64 modules already.
  #
  # In place of `wasm`, `cid` may be given: a CID, `/ipfs/CID` or `ipfs://CID`, each with a path below it or without. It
  # names a file that is such a component, or the folder of an image, whose `bin/main.wasm` it is. Then a child sees that
  # image as its `/`, read-only, and what `etc/cell.toml` in it says of limits holds where it is lower than what the child
  # would have; it gives the child nothing. What is not in the node's blockstore is fetched: the program now, and the rest
  # when a child reads it.
  #
  # For that the cell needs the grant `fetch`. It is an error if it does not have it, if both or none of the two are given,
  # if `cid` names no content or something that is no program and no image, if the program is longer than the limit `wasm`,
  # or if it cannot be had.
}

interface Module {
  # A compiled component, which can be started any number of times.

  spawn @0 (args :List(Text), env :List(Text), bootstrap :Capability, grants :List(Text), limits :List(Limit),
      stdio :Stdio) -> (process :Process, stdin :ByteStream, stdout :ByteStream, stderr :ByteStream);
  # Starts it in a cell of its own. `args` and `env` are as in `Executor.runBytes`, and what is left out is as it is there,
  # except for the bootstrap capability:
  #
  # The child gets exactly what it is handed. `bootstrap` is its bootstrap capability; where it is null the child has
  # none, and each call that it makes is an error that says so. It may be anything that the caller holds: its own `Host`,
  # whose executor starts children of the caller then; something restricted or revocable; or a capability that the caller
  # serves itself.
  #
  # `grants` has what the child may do besides, in the words of `ww run --grant`: `network`, `network:NETWORK` and `fetch`,
  # as far as the parent may. With `fetch` the child has a `Host` of its own as its bootstrap capability, as one that
  # `runBytes` starts, whose executor loads by CID; it cannot be given beside a `bootstrap`. `limits` bounds it; those that are not named are the parent's, and what the child uses is taken
  # from what its parent may use in any case.
  #
  # It is an error, before anything runs, if a grant or a limit is unknown, malformed, or more than the parent has. The
  # parent is the cell to which the executor belongs that has loaded the module. The child ends with it.
}

struct Limit {
  # A bound on what a cell may use up.

  name @0 :Text;
  # One of those of `ww run --limit`, such as `memory`.

  value @1 :Text;
  # In the form that it has there: `64MiB`, `500ms`, `16`.
}

struct Stdio {
  # What the standard streams of a new cell are.

  stdin @0 :Stream;
  stdout @1 :Stream;
  stderr @2 :Stream;

  enum Stream {
    pipe @0;
    # One that `Process` has the other end of.

    null @1;
    # Nothing: the child reads the end at once, and what it writes is thrown away. The other end behaves as if the child
    # had closed it.
  }
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

    limit @3 :Limit;
    # It was ended, since it had used up what it, or a cell above it, may use of this.
  }
}

interface Process {
  # A running or ended child.
  #
  # The three streams are pipes, which hold what the child's limit `stdio` says, 64 KiB by default. Nobody reads stdout
  # and stderr but the holder of this capability: a child whose output is not read stops when the pipe is full, until it
  # is read, closed, or all references to the stream and to this process are dropped. Output that was written before the
  # child ended can still be read afterwards.

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

  usage @5 () -> (cpuTimeNanos :UInt64, memoryBytes :UInt64, memoryPeakBytes :UInt64, fetchedBytes :UInt64);
  # What it uses and has used, with all its children: how long they had a processor, up to the last time that they gave it
  # back; what their memories and tables take now, and what the host holds for them; the most that these ever took together; and
  # how many bytes of content came over the network for them. Also after it has ended.
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
