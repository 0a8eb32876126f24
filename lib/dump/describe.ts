/** Turns what was collected into the images of one process. */
import type { ImageWriter } from "../image/image_writer.ts";
import type { Feature } from "../image/features.ts";
import { sharedMemoryImage } from "./shared_memory.ts";
import {
  type ckpt_area_entry,
  type ckpt_task_entry,
  type inventory_entry,
  lsmtype,
  type task_core_entry,
  type task_kobj_ids_entry,
  type vma_entry,
} from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { describeMemory } from "../mm/memory_map.ts";
import type { StoredPages } from "../mm/page_copy.ts";
import { dumpResourceLimits } from "../task/resource_limits.ts";
import {
  dumpAffinity,
  dumpSchedulingExtension,
  type OwnScheduling,
} from "../task/scheduling.ts";
import { dumpProcess } from "../task/process_attributes.ts";
import { SeccompTable } from "../task/seccomp.ts";
import { dumpThreadExtension } from "../task/thread_attributes.ts";
import type { Collected } from "./collect.ts";
import type { DescribedFiles } from "./describe_files.ts";
import {
  describeThread,
  extraRegisters,
  OWN_CGROUP_SET,
} from "./describe_threads.ts";
import type { SharedContent } from "./shared_memory.ts";
import type { Survey } from "./survey.ts";

/** Numbers for the namespaces that ckpt and the program share. */
const OWN_NAMESPACES = {
  pid_ns_id: 1,
  net_ns_id: 2,
  ipc_ns_id: 3,
  uts_ns_id: 4,
  time_ns_id: 5,
  mnt_ns_id: 6,
  user_ns_id: 7,
  cgroup_ns_id: 8,
};

/** ckpt itself has the first number of each kind, as in CRIU's images. */
const DUMPER_IDS: task_kobj_ids_entry = {
  vm_id: 1,
  files_id: 1,
  fs_id: 1,
  sighand_id: 1,
  ...OWN_NAMESPACES,
};

const TASK_IDS: task_kobj_ids_entry = {
  vm_id: 2,
  files_id: 2,
  fs_id: 2,
  sighand_id: 2,
  ...OWN_NAMESPACES,
};

const TASK_ALIVE = 1;
/** The first page image is the task's own. */
export const TASK_PAGES_ID = 1;

export interface Described {
  survey: Survey;
  collected: Collected;
  files: DescribedFiles;
  pages: StoredPages;
  shared: readonly SharedContent[];
  /** CLOCK_MONOTONIC and CLOCK_BOOTTIME at the dump, nanoseconds. */
  clocks: { monotonic: bigint; boottime: bigint };
  /** What ckpt itself has: the defaults of this host. */
  own: OwnScheduling;
}

/** Writes everything but the inventory, which it returns. */
export function writeImages(
  writer: ImageWriter,
  described: Described,
): inventory_entry {
  const { survey, collected, files, pages, shared } = described;
  const { pid, stat } = survey;
  const { threads } = collected;
  const process = dumpProcess(collected.process, collected.readings);
  const seccomp = new SeccompTable();
  const seccompFields = seccomp.addProcess(
    threads.map(({ tid, status, filters }) => ({
      tid,
      mode: status.seccomp ?? 0,
      filters,
    })),
  );

  writer.write("pstree", undefined, [{
    pid,
    ppid: 0,
    pgid: stat.pgrp,
    sid: stat.session,
    threads: threads.map(({ tid }) => tid),
  }]);
  threads.forEach((thread, i) => {
    const core = describeThread(
      thread,
      seccompFields[i],
      i === 0 ? describeProcess(described, process.task) : undefined,
    );
    writer.write("core", thread.tid, core);
  });
  writer.write("ids", pid, TASK_IDS);
  writer.write("fs", pid, files.fs);
  writer.write("fdinfo", TASK_IDS.files_id, files.descriptors);
  writer.write("files", undefined, files.table.entries);
  if (files.terminals.length > 0) {
    writer.write("tty-info", undefined, files.terminals);
  }
  writer.write("seccomp", undefined, seccomp.entry);
  writer.write("timens", 0, {
    monotonic: timespec(described.clocks.monotonic),
    boottime: timespec(described.clocks.boottime),
  });
  writer.write(
    "mm",
    pid,
    describeMemory(
      stat,
      collected.heapEnd,
      collected.auxv,
      files.exeId,
      [...survey.vmas.vmas.map(({ entry }) => entry), ...guardAreas(pages)],
      process.mm.dumpable ?? 1,
      process.mm.thp_disabled ?? false,
    ),
  );
  writer.write("pagemap", pid, {
    pages_id: TASK_PAGES_ID,
    entries: pages.entries,
  });
  for (const content of shared) {
    writer.write(
      "pagemap-shmem",
      content.id,
      sharedMemoryImage(content),
    );
  }
  const features = writeExtension(writer, described, process.extension);
  return inventory(features);
}

function timespec(ns: bigint): { tv_sec: bigint; tv_nsec: bigint } {
  return { tv_sec: ns / 1_000_000_000n, tv_nsec: ns % 1_000_000_000n };
}

function describeProcess(
  { survey, collected }: Described,
  attributes: Pick<task_core_entry, "personality">,
): task_core_entry {
  const [leader] = collected.threads;
  return {
    task_state: TASK_ALIVE,
    exit_code: 0,
    flags: survey.stat.flags >>> 0,
    blk_sigset: leader.state.signalMask,
    comm: leader.status.name,
    timers: collected.timers,
    rlimits: dumpResourceLimits(survey.limits),
    cg_set: OWN_CGROUP_SET,
    signals_s: { signals: collected.pending },
    sigactions: collected.actions,
    ...attributes,
  };
}

/** Ranges with guard pages are listed behind all areas. */
function guardAreas({ guards }: StoredPages): vma_entry[] {
  return guards.map(({ start, end }) => ({
    start,
    end,
    pgoff: 0n,
    shmid: 0n,
    prot: 0,
    flags: 0,
    status: VMA_STATUS.GUARD,
    fd: -1n,
  }));
}

/** Writes what CRIU has no field for. Returns what CRIU must not ignore. */
function writeExtension(
  writer: ImageWriter,
  { survey, collected, own }: Described,
  process: Omit<ckpt_task_entry, "threads" | "areas" | "cgroups">,
): Feature[] {
  const features = new Set<Feature>();
  if (process.personality !== undefined) features.add("ckpt:personality");
  const threads = collected.threads.map((thread) => {
    const { state, answers, readings } = thread;
    const { dispatch } = state;
    const entry = {
      ...dumpThreadExtension(answers, readings),
      ...dumpSchedulingExtension(state.scheduling, own),
      affinity: dumpAffinity(state.affinity, own.affinity),
      xsave: extraRegisters(thread),
    };
    if (dispatch.mode !== 0n) {
      entry.sud_mode = dispatch.mode;
      entry.sud_selector = dispatch.selector;
      entry.sud_offset = dispatch.offset;
      entry.sud_len = dispatch.length;
      features.add("ckpt:syscall-user-dispatch");
    }
    if (entry.affinity !== undefined) features.add("ckpt:affinity");
    if (entry.xsave !== undefined) features.add("ckpt:xsave");
    if (entry.tsc_mode !== undefined) features.add("ckpt:tsc");
    return entry;
  }).filter((entry) => Object.values(entry).filter(isSaid).length > 1);
  const areas = survey.vmas.vmas.flatMap((vma): ckpt_area_entry[] => {
    const entry = {
      start: vma.entry.start,
      lock_on_fault: vma.lockOnFault || undefined,
      sealed: vma.sealed || undefined,
      name: vma.name,
    };
    return Object.values(entry).filter(isSaid).length > 1 ? [entry] : [];
  });
  const extension: ckpt_task_entry = {
    ...process,
    lock_future: collected.lockFuture || undefined,
    threads,
    areas,
    cgroups: collected.cgroups,
  };
  if (
    threads.length > 0 || areas.length > 0 || collected.cgroups.length > 0 ||
    Object.values(process).some(isSaid) || collected.lockFuture !== 0
  ) {
    writer.write("ckpt-task", survey.pid, extension);
  }
  return [...features];
}

function isSaid(value: unknown): boolean {
  return value !== undefined;
}

/** CRIU's number for "no network was locked". */
const NETWORK_LOCK_SKIP = 2;

function inventory(features: readonly Feature[]): inventory_entry {
  return {
    img_version: 2,
    fdinfo_per_id: true,
    root_ids: DUMPER_IDS,
    ns_per_id: true,
    root_cg_set: OWN_CGROUP_SET,
    lsmtype: lsmtype.NO_LSM,
    network_lock_method: NETWORK_LOCK_SKIP,
    plugins_entry: { plugins: [...features] },
    dump_criu_run_id: crypto.randomUUID(),
  };
}
