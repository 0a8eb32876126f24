/** The reader and writer of protobufjs, set up for 64-bit values. */

import { Halves, protobufHasLoaded } from "./protobuf_prelude.ts";
import protobuf from "protobufjs/minimal";

protobufHasLoaded();
protobuf.util.Long = Halves;
protobuf.configure();

// The plain classes, not what their `create` chooses: with Node's Buffer in
// reach that would be slower ones.
export const Reader = protobuf.Reader;
export const Writer = protobuf.Writer;
export type Reader = protobuf.Reader;
export type Writer = protobuf.Writer;
export { Halves };
