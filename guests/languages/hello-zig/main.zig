//! Greets its first argument; `fail` makes it fail.
const std = @import("std");

pub fn main(init: std.process.Init) !u8 {
    const arguments = try init.minimal.args.toSlice(init.arena.allocator());
    const name = if (arguments.len > 1) arguments[1] else "world";
    if (std.mem.eql(u8, name, "fail")) {
        std.debug.print("failed as asked\n", .{});
        return 1;
    }
    var buffer: [256]u8 = undefined;
    var stdout = std.Io.File.stdout().writer(init.io, &buffer);
    try stdout.interface.print("hello {s} from Zig\n", .{name});
    try stdout.interface.flush();
    return 0;
}
