/** Descriptors of regular files, directories and devices; working and root directory. */
import { survives } from "./state.ts";

survives("files_regular", "open files and directories");
survives("files_devices", "devices and standard streams");
survives("directories", "the working and the root directory");
