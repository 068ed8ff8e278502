// Package abi states how the engine and a policy module speak:
// xinghuo.policy.v1.
//
// # What a module exports
//
//	memory                       its linear memory, at most 64 pages (4 MiB)
//	xh_abi_version() -> i32      1
//	xh_buffer() -> i32           address of the scratch buffer: 24,576 bytes,
//	                             fixed for the life of the instance
//	xh_evaluate(len i32) -> i64  judges the reading in the scratch buffer
//	xh_reason(id i32) -> i64     address << 32 | length of a reason's text
//	_initialize()                optional; called once, before all others
//
// xh_reason is called once for each id from 1 up while the module is loaded,
// until it answers with length 0; there are at most 256 reasons, each at most
// 256 bytes of UTF-8. A module that never gives a reason may leave it out.
//
// A module may import nothing but these of wasi_snapshot_preview1:
// args_get, args_sizes_get, environ_get, environ_sizes_get (all empty),
// clock_time_get, random_get, fd_write (1 and 2 go to the service's log, a few
// lines a second), proc_exit (ends the instance).
//
// The engine adds a global `xh_fuel`; a module must not export that name.
//
// # What the scratch buffer holds
//
// One reading, little endian, without padding or alignment:
//
//	offset      size  what
//	0           8     sequence, unsigned
//	8           8     time, signed nanoseconds since 1970-01-01 UTC, the nearest
//	                  that fits; 0 is unset
//	16          2     D, bytes of the device's id, 1 to 64
//	18          2     S, bytes of the source, 0 to 64
//	20          2     N, number of values, 1 to 64
//	22          2     0, reserved
//	24          D     the device's id
//	24+D        S     the source
//	24+D+S      …     N values
//
// and each value:
//
//	offset      size  what
//	0           1     kind: 0 number, 1 text; a reader skips kinds it does not know
//	1           1     L, bytes of the name, 1 to 64
//	2           2     P, bytes of the payload: 8 for a number, 1 to 256 for a text
//	4           L     the name
//	4+L         P     the payload: an IEEE 754 double with every bit as it was
//	                  measured, or UTF-8
//
// The longest reading takes 24 + 64 + 64 + 64·(4+64+256) = 20,888 bytes.
//
// # What xh_evaluate returns
//
//	bits 63…56  action: 1 ACCEPT, 2 REJECT, 3 ALERT, 4 TRANSFORM
//	bits 55…32  id of the reason, 0 for none
//	bits 31…0   length of the output that the guest left in the scratch buffer;
//	            0 but for TRANSFORM
//
// Action 0 is the guest's word that it could not judge; it, any other number
// and a trap are a failed evaluation, and the fail mode decides. TRANSFORM is
// reserved: its output is to be a reading in the form above. Today's engine
// takes it as a failed evaluation and says so.
package abi
