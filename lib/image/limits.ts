/**
 * What a reader accepts at most. Images may come from anywhere, so every
 * length and count in them is held against one of these and against the size
 * of the file before anything is allocated for it.
 */
export const LIMITS = {
  /** Size of one image file other than pages and ghost contents. */
  file_bytes: 1024 * 1024 * 1024,
  /** Size of one entry; the largest is a mm_entry with all its areas. */
  entry_bytes: 256 * 1024 * 1024,
  /** Entries in one file; the most are in a pagemap. */
  entries: 32 * 1024 * 1024,
  /** Elements of one repeated field; the most are areas of a mm_entry. */
  elements: 4 * 1024 * 1024,
  /** Messages inside messages; cgroups and AppArmor namespaces nest. */
  depth: 64,
  /** Bytes of one text; a path has at most 4096, mount options a page. */
  string_bytes: 1024 * 1024,
  /** Bytes after an entry that are held in memory: queued data, semaphores. */
  extra_bytes: 256 * 1024 * 1024,
  /** Processes between one and the root of its tree. */
  generations: 1024,
  /** What stands before the content of a ghost file. */
  ghost_head_bytes: 64 * 1024,
  /** Files in a directory of images. */
  files: 4 * 1024 * 1024,
  /** The manifest, at some 150 bytes for a file. */
  manifest_bytes: 256 * 1024 * 1024,
} as const;
