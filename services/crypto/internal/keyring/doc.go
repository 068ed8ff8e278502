// Package keyring keeps the node's keys: it makes them, seals them at rest,
// works with them by handle and never gives one out.
//
// # The box
//
// What Seal returns and Open takes. Integers are big endian.
//
//	offset  bytes  what
//	0       1      version of this format: 1
//	1       1      algorithm: 1 = SM4-GCM with a 16-byte tag (RFC 8998)
//	2       4      version of the key, 1 and up
//	6       12     nonce: 4 random bytes, then an 8-byte counter
//	18      n      ciphertext, as long as the plaintext
//	18+n    16     tag
//
// The tag binds the header (bytes 0 to 17), the handle's length (1 byte), the
// handle, and the caller's associated data, in that order; so a box opens only
// under the handle that sealed it, and no byte of it can change.
//
// # Nonces
//
// The counter never comes twice under one key version, so the nonce does not.
// A process reserves counters in ranges of 16,384 and writes the new end of the
// reserved part to disk, synced, before it uses the first of them; what a crash
// leaves unused is lost, not used again. The reservation is made under a lock
// on the folder, so that an old and a new process may both seal during a
// hand-over. The 4 random bytes are drawn for each range: should the folder be
// put back from an old copy, which the counter cannot know, a range repeats
// with a chance of 2^-32. After 2^32 counters the key version seals no more
// (NIST SP 800-38D section 8.3).
//
// # The folder
//
// One file of each kind for each key version, each written to a temporary
// name, synced, renamed and the folder synced. Modes are 0600 and 0700 from
// birth.
//
// <handle>.<version>.key holds the key:
//
//	offset  bytes  what
//	0       4      "XHK1"
//	4       1      kind: 1 = SM4, 2 = SM2
//	5       4      version of the key
//	9       8      when it was made, Unix time in ns
//	17      12     random nonce
//	29      n      the secret, sealed: 16 bytes for SM4, 32 for SM2
//	29+n    16     tag; binds bytes 0 to 16 and the handle
//
// <handle>.<version>.nonce holds the end of the reserved counters, for SM4 keys:
//
//	offset  bytes  what
//	0       4      "XHN1"
//	4       4      version of the key
//	8       12     random nonce
//	20      8      counters below this are spent, sealed
//	28      16     tag; binds bytes 0 to 7 and the handle
//
// Both are sealed with SM4-GCM under the master key: 16 bytes in a file of mode
// 0400 which only this process's user may own. It is made at the first start;
// when it is gone while keys are there, the keyring does not open rather than
// start anew. Keys lie no safer than the master key: keep it on another medium
// than the folder's backup.
//
// A key whose file is damaged is reported by Damaged and is refused; the others
// go on. A key whose nonce file is gone or damaged opens, but seals no more.
package keyring
