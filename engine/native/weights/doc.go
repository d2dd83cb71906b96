// Package weights reads the files that models are published in: GGUF, and
// safetensors in the Hugging Face layout. It maps them into memory and hands out
// tensors by name, as the bytes in the file; it knows nothing of models beyond
// those names. Package model packs the tensors for its kernels, and whoever
// needs the metadata of a GGUF (vocabulary, chat template) reads it here.
//
// Laws:
//   - A file is checked completely when it is opened: every tensor handed out
//     lies inside the file, aligned as its format asks, overlaps no other and has
//     exactly the bytes its shape and type need. What is wrong is said with the
//     file, the tensor or key, and what to do.
//   - Nothing is allocated in proportion to a number the file merely claims; a
//     header costs memory in proportion to its own bytes.
//   - Data and everything sliced from it is valid until Close. Metadata is copied
//     out by the accessors.
//   - A file must not be shortened while it is open: reading a mapped page that
//     is gone ends the process. Writers replace files by renaming.
package weights
