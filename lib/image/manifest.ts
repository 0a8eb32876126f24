/**
 * The manifest that ckpt puts beside the images it makes: sizes of all files
 * and checksums of all but page files and other raw ones, so that a damaged
 * byte is found and named before anything is started. CRIU's images have none.
 */

import { sha256 } from "../ffi/sha256.ts";
import { type ImageProblem } from "./image_error.ts";
import { LIMITS } from "./limits.ts";

export const MANIFEST_NAME = "ckpt-manifest.json";

/** The only version of the manifest so far. */
const FORMAT = 1;

/** The machine this program runs on, and whose images it makes and reads. */
export const MACHINE = "x86_64";

export interface ManifestFile {
  size: number;
  /** SHA-256 in hexadecimal; raw files have none. */
  sha256?: string;
}

export interface Manifest {
  format: number;
  /** The version of ckpt that made the images. */
  ckpt: string;
  machine: string;
  /** When, as ISO 8601. */
  created: string;
  files: Record<string, ManifestFile>;
}

/** A manifest with everything but the files filled in. */
export function newManifest(ckptVersion: string): Manifest {
  return {
    format: FORMAT,
    ckpt: ckptVersion,
    machine: MACHINE,
    created: new Date().toISOString(),
    files: {},
  };
}

/** The bytes of the manifest's file. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  return new TextEncoder().encode(text(manifest, ownDigest(manifest)));
}

/** There is one way only to write a manifest, so that every change shows. */
function text(manifest: Manifest, digest: string): string {
  return JSON.stringify({ ...manifest, sha256: digest }, null, 1) + "\n";
}

function ownDigest(manifest: Manifest): string {
  return sha256(new TextEncoder().encode(JSON.stringify(manifest)));
}

/**
 * Reads a manifest and checks it against its own checksum.
 * @returns the manifest, or what is wrong with it
 */
export function decodeManifest(bytes: Uint8Array): Manifest | ImageProblem {
  const problem = (why: string) => ({ file: MANIFEST_NAME, why });
  if (bytes.length > LIMITS.manifest_bytes) {
    return problem(`is larger than ${LIMITS.manifest_bytes} bytes`);
  }
  let written: string;
  let parsed: unknown;
  try {
    const options = { fatal: true, ignoreBOM: true };
    written = new TextDecoder("utf-8", options).decode(bytes);
    parsed = JSON.parse(written);
  } catch {
    return problem("is damaged: not JSON");
  }
  if (!isObject(parsed)) return problem("is damaged: not an object");
  const { sha256: digest, ...manifest } = parsed;
  if (!isManifest(manifest)) return problem("is damaged: a field is missing");
  const right = ownDigest(manifest);
  if (digest !== right || text(manifest, right) !== written) {
    return problem("is damaged: its checksum does not match");
  }
  return manifest.format === FORMAT
    ? manifest
    : problem(`has format ${manifest.format}; this ckpt knows ${FORMAT}`);
}

function isManifest(value: Record<string, unknown>): value is
  & Record<string, unknown>
  & Manifest {
  return typeof value.format === "number" && typeof value.ckpt === "string" &&
    typeof value.machine === "string" && typeof value.created === "string" &&
    isObject(value.files) &&
    Object.values(value.files).every((file) =>
      isObject(file) && typeof file.size === "number" &&
      (file.sha256 === undefined || typeof file.sha256 === "string")
    );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
