// Package journal is the write-ahead journal: what it has acknowledged is on
// disk, and what rots on disk is found, set aside and stepped over.
//
// # Files
//
//	<dir>/lock                     flock(2)ed by the one process that has the journal open
//	<dir>/meta                     identity, epoch and next sequence (a slot file, below)
//	<dir>/<segment id, 16 hex>.seg records, in order
//	<dir>/reserve                  space kept for shedding when the disk is full
//	<dir>/cursors/<name>           a consumer's position (a slot file)
//	<dir>/quarantine/<segment id>-<offset, 16 hex>.bad
//	                               the bytes of one damaged range, as found
//	<dir>/*.tmp                    unfinished; removed at the next open
//
// All integers are little-endian. CRC means CRC32C (Castagnoli).
//
// # Segment
//
// A segment starts with a block of 4096 bytes that holds its header twice, at
// offsets 0 and 2048, and zeros:
//
//	 0  8  magic "XHJRNL\r\n"
//	 8  1  version, 1
//	 9  1  flags; bit 0: compacted, sequences are missing on purpose
//	10  6  zero
//	16  8  identity of the journal, random
//	24  8  segment id, rising from 1
//	32  8  first sequence: no record at or above it in an earlier segment counts
//	40  8  epoch
//	48  8  time of creation, milliseconds since 1970
//	56  4  zero
//	60  4  CRC of bytes 0 to 59
//
// Magic, version and CRC stay where they are in every later version, so that a
// newer version is told apart from a damaged header: Open refuses the first,
// touching nothing, and repairs nothing but reads on with the second copy, or
// with neither (the file's name, the other segments and the frames say all of
// it again).
//
// # Frame
//
// Frames follow each other from offset 4096, each on a multiple of 8 bytes:
//
//	 0  4  CRC of bytes 4 to 23, started from the salt of the segment
//	 4  4  CRC of the payload with its padding
//	 8  3  length of the payload, bytes
//	11  1  kind (high four bits: 0 record, 1 seal), class (low four bits)
//	12  4  epoch
//	16  8  sequence
//	24     payload, padded with zeros to a multiple of 8
//
// The salt is the CRC of identity and segment id. A payload that holds a frame
// (another journal's, or one that a device made up) therefore never passes for
// one when a reader looks for the next frame behind a damaged one. The header
// has a CRC of its own so that a damaged payload costs exactly its record: the
// length is still trusted. Behind a damaged header the reader tries every
// multiple of 8 bytes.
//
// The last frame of a closed segment is its seal: sequence is the last one in
// the segment, the payload is records, first sequence, last sequence, time of
// sealing (ms), end of the records (offset), and the number of records of each
// of four classes, 8 bytes each, and "XHSEAL\r\n". The file ends behind it. Open believes a valid
// seal and does not read the segment; without one it reads it all.
//
// # Torn or rotten
//
// A segment is allocated and reads as zeros before it is written. What power
// loss tears off a write is whole sectors, and they still read as zeros. A bad
// range in a segment without a seal is therefore torn when one of the 512-byte
// sectors it touches is zero from the range's start, or its own, to its end,
// and damage otherwise. Torn ranges at the end are cut off; valid records behind a torn range are kept. Damage is
// copied to quarantine, counted, and reported once; the file there is also the
// note that it was reported. A write never changes bytes that were written
// before, so a sector written twice holds the same earlier records in either
// state, however it is torn.
//
// No segment is written by two processes: each open seals what it finds and
// begins a new one. None is written again after an error of write or fdatasync
// either, since the kernel may have dropped the dirty pages and called them
// clean: the unsynced records, which are still in memory, go to a new segment
// whose first sequence disowns the copies in the old one.
//
// # Identity of a record
//
// Sequences rise by one through the life of the journal. The epoch rises at
// each open (to the time in seconds, or by one if that is not later) and every
// frame carries the epoch it was appended in. A record read again, after any
// number of restarts, has the epoch and the sequence that it was born with, so
// `<node>/<epoch>/<sequence>` is the same Nats-Msg-Id. A sequence that was
// handed out but lost before it was synced (durability Interval and None) is
// handed out again only under a later epoch, and never below a cursor.
//
// # Slot file
//
// Two slots, at offsets 0 and 4096, written in turns and synced each time, so
// one of them is whole at any moment; the greater generation counts:
//
//	 0  8  magic "XHSLOT\r\n"
//	 8  1  version, 1; 7 zeros
//	16  8  generation
//	24 32  four values of 8 bytes: a cursor's is the last sequence delivered;
//	       meta's are identity, epoch, next sequence, 0
//	56  4  zero
//	60  4  CRC of bytes 0 to 59
//
// # Room
//
// When MaxBytes or the disk leave no room for a new segment, the oldest segment
// that every cursor has passed goes first. Then records are shed, lowest class
// first and oldest first within it, up to the class that asks for room: a
// segment's other records are written to the reserve file, which is allocated
// already, and that is renamed over the segment. What was shed undelivered is
// counted by class and reason. A record for which that is not enough is refused
// before it has a sequence.
//
// # Preallocation
//
// A segment is allocated whole, so the disk is full when one is begun and not
// in the middle of a batch. The kernel marks the blocks unwritten, and each
// fdatasync that writes into them would commit a transaction of the file
// system. The journal therefore writes zeros a few hundred kilobytes ahead,
// together with a batch; the syncs that follow touch data only.
package journal
