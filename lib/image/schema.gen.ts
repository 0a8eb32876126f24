// deno-fmt-ignore-file
// deno-lint-ignore-file
/**
 * The messages of the image format. Written by tools/compile_schema.ts from
 * proto/*.proto: change those, and run it.
 */

export const SysctlType = {
  CTL_STR: 5,
  CTL_32: 6,
} as const;
/** One of {@link SysctlType}, or a number that a newer writer knows. */
export type SysctlType = number;

export const TtyType = {
  UNKNOWN: 0,
  PTY: 1,
  CONSOLE: 2,
  VT: 3,
  CTTY: 4,
  EXT_TTY: 5,
  SERIAL: 6,
} as const;
/** One of {@link TtyType}, or a number that a newer writer knows. */
export type TtyType = number;

export const ckpt_layer_entry_roles = {
  upper: 1,
  work: 2,
  lower: 3,
  data: 4,
} as const;
/** One of {@link ckpt_layer_entry_roles}, or a number that a newer writer knows. */
export type ckpt_layer_entry_roles = number;

export const core_entry_march = {
  UNKNOWN: 0,
  X86_64: 1,
  ARM: 2,
  AARCH64: 3,
  PPC64: 4,
  S390: 5,
  MIPS: 6,
  LOONGARCH64: 7,
  RISCV64: 8,
} as const;
/** One of {@link core_entry_march}, or a number that a newer writer knows. */
export type core_entry_march = number;

export const cpuinfo_x86_entry_vendor = {
  UNKNOWN: 0,
  INTEL: 1,
  AMD: 2,
} as const;
/** One of {@link cpuinfo_x86_entry_vendor}, or a number that a newer writer knows. */
export type cpuinfo_x86_entry_vendor = number;

export const fd_types = {
  UND: 0,
  REG: 1,
  PIPE: 2,
  FIFO: 3,
  INETSK: 4,
  UNIXSK: 5,
  EVENTFD: 6,
  EVENTPOLL: 7,
  INOTIFY: 8,
  SIGNALFD: 9,
  PACKETSK: 10,
  TTY: 11,
  FANOTIFY: 12,
  NETLINKSK: 13,
  NS: 14,
  TUNF: 15,
  EXT: 16,
  TIMERFD: 17,
  MEMFD: 18,
  BPFMAP: 19,
  PIDFD: 20,
  CTL_TTY: 65534,
  AUTOFS_PIPE: 65535,
} as const;
/** One of {@link fd_types}, or a number that a newer writer knows. */
export type fd_types = number;

export const fh_entry_sizes = {
  min_entries: 16,
} as const;
/** One of {@link fh_entry_sizes}, or a number that a newer writer knows. */
export type fh_entry_sizes = number;

export const fstype = {
  UNSUPPORTED: 0,
  PROC: 1,
  SYSFS: 2,
  DEVTMPFS: 3,
  BINFMT_MISC: 4,
  TMPFS: 5,
  DEVPTS: 6,
  SIMFS: 7,
  PSTORE: 8,
  SECURITYFS: 9,
  FUSECTL: 10,
  DEBUGFS: 11,
  CGROUP: 12,
  AUFS: 13,
  MQUEUE: 14,
  FUSE: 15,
  AUTO: 16,
  OVERLAYFS: 17,
  AUTOFS: 18,
  TRACEFS: 19,
  CGROUP2: 23,
} as const;
/** One of {@link fstype}, or a number that a newer writer knows. */
export type fstype = number;

export const lsmtype = {
  NO_LSM: 0,
  SELINUX: 1,
  APPARMOR: 2,
} as const;
/** One of {@link lsmtype}, or a number that a newer writer knows. */
export type lsmtype = number;

export const mark_type = {
  INODE: 1,
  MOUNT: 2,
} as const;
/** One of {@link mark_type}, or a number that a newer writer knows. */
export type mark_type = number;

export const nd_type = {
  LOOPBACK: 1,
  VETH: 2,
  TUN: 3,
  EXTLINK: 4,
  VENET: 5,
  BRIDGE: 6,
  MACVLAN: 7,
  SIT: 8,
} as const;
/** One of {@link nd_type}, or a number that a newer writer knows. */
export type nd_type = number;

export const remap_type = {
  LINKED: 0,
  GHOST: 1,
  PROCFS: 2,
} as const;
/** One of {@link remap_type}, or a number that a newer writer knows. */
export type remap_type = number;

export const seccomp_mode = {
  disabled: 0,
  strict: 1,
  filter: 2,
} as const;
/** One of {@link seccomp_mode}, or a number that a newer writer knows. */
export type seccomp_mode = number;

export const sk_shutdown = {
  NONE: 0,
  READ: 1,
  WRITE: 2,
  BOTH: 3,
} as const;
/** One of {@link sk_shutdown}, or a number that a newer writer knows. */
export type sk_shutdown = number;

export const user_x86_regs_mode = {
  NATIVE: 1,
  COMPAT: 2,
} as const;
/** One of {@link user_x86_regs_mode}, or a number that a newer writer knows. */
export type user_x86_regs_mode = number;

export interface aa_namespace {
  name: string;
  policies: aa_policy[];
  namespaces: aa_namespace[];
}

export interface aa_policy {
  name: string;
  blob: Uint8Array;
}

export interface aio_ring_entry {
  id: bigint;
  nr_req: number;
  ring_len: number;
}

export interface apparmor_entry {
  namespaces: aa_namespace[];
}

export interface autofs_entry {
  fd: number;
  pgrp: number;
  timeout: number;
  minproto: number;
  maxproto: number;
  mode: number;
  uid?: number | undefined;
  gid?: number | undefined;
  read_fd?: number | undefined;
}

export interface binfmt_misc_entry {
  name: string;
  enabled: boolean;
  interpreter: string;
  flags?: string | undefined;
  extension?: string | undefined;
  magic?: string | undefined;
  mask?: string | undefined;
  offset?: number | undefined;
}

export interface bpfmap_data_entry {
  map_id: number;
  keys_bytes: number;
  values_bytes: number;
  count: number;
}

export interface bpfmap_file_entry {
  id: number;
  flags: number;
  pos: bigint;
  fown: fown_entry;
  map_type: number;
  key_size: number;
  value_size: number;
  map_id: number;
  max_entries: number;
  map_flags: number;
  memlock: bigint;
  /** Absent means false. */
  frozen: boolean;
  map_name: string;
  /** Absent means 0. */
  ifindex: number;
  /** Absent means -1. */
  mnt_id?: number | undefined;
  map_extra?: bigint | undefined;
}

export interface cg_controller_entry {
  cnames: string[];
  dirs: cgroup_dir_entry[];
  is_threaded?: boolean | undefined;
}

export interface cg_member_entry {
  name: string;
  path: string;
  cgns_prefix?: number | undefined;
}

export interface cg_set_entry {
  id: number;
  ctls: cg_member_entry[];
}

export interface cgroup_dir_entry {
  dir_name: string;
  children: cgroup_dir_entry[];
  properties: cgroup_prop_entry[];
  dir_perms?: cgroup_perms | undefined;
}

export interface cgroup_entry {
  sets: cg_set_entry[];
  controllers: cg_controller_entry[];
}

export interface cgroup_perms {
  mode: number;
  uid: number;
  gid: number;
}

export interface cgroup_prop_entry {
  name: string;
  value: string;
  perms?: cgroup_perms | undefined;
}

export interface ckpt_area_entry {
  start: bigint;
  lock_on_fault?: boolean | undefined;
  sealed?: boolean | undefined;
  name?: string | undefined;
  flock?: number | undefined;
}

export interface ckpt_buffer_entry {
  start: bigint;
  length: number;
}

export interface ckpt_cgroup_entry {
  controllers: string;
  path: string;
}

export interface ckpt_cgroup_namespace_entry {
  roots: ckpt_cgroup_entry[];
}

export interface ckpt_corked_entry {
  content: Uint8Array;
  destination: Uint8Array;
  hops?: number | undefined;
  traffic_class?: number | undefined;
}

export interface ckpt_credentials_entry {
  pid: number;
  uid: number;
  gid: number;
}

export interface ckpt_datagram_entry {
  content: Uint8Array;
  source: Uint8Array;
}

export interface ckpt_ended_entry {
  uid: number;
  euid: number;
  suid: number;
  gid: number;
  egid: number;
  sgid: number;
}

export interface ckpt_ended_leader_entry {
  status: number;
}

export interface ckpt_file_entry {
  id: number;
  semaphore?: boolean | undefined;
  watched: ckpt_watched_entry[];
  device?: bigint | undefined;
  busy_polling?: Uint8Array | undefined;
  modified_s?: bigint | undefined;
  modified_ns?: number | undefined;
  digest?: Uint8Array | undefined;
  digest_bytes?: bigint | undefined;
}

export interface ckpt_filesystem_mark_entry {
  index: number;
  mflags: number;
  mask: number;
  ignored_mask: number;
  path: string;
}

export interface ckpt_ghost_entry {
  ghost_id: number;
  xattrs: ckpt_xattr_entry[];
  inode_flags?: number | undefined;
  atime_ns?: number | undefined;
  mtime_ns?: number | undefined;
  allocated: ckpt_range_entry[];
  parent?: number | undefined;
  project?: number | undefined;
}

export interface ckpt_inherited_entry {
  ranges: ckpt_range_entry[];
}

export interface ckpt_layer_entry {
  role: ckpt_layer_entry_roles;
  mnt_id: number;
  path: string;
  handle?: Uint8Array | undefined;
  handle_type?: number | undefined;
  trusted?: boolean | undefined;
}

export interface ckpt_line_entry {
  length: number;
  ended_by_eof?: boolean | undefined;
}

export interface ckpt_membership_entry {
  family: number;
  group: Uint8Array;
  interface: string;
  mode: number;
  sources: Uint8Array[];
}

export interface ckpt_message_entry {
  priority: number;
  data: Uint8Array;
}

export interface ckpt_mount_entry {
  mnt_id: number;
  type?: string | undefined;
  host_path?: string | undefined;
  peer_path?: string | undefined;
  master_path?: string | undefined;
  layers: ckpt_layer_entry[];
  removed?: number | undefined;
  detached?: mnt_entry | undefined;
}

export interface ckpt_packet_entry {
  sender?: ckpt_credentials_entry | undefined;
  name?: Uint8Array | undefined;
}

export interface ckpt_packet_rings_entry {
  received: number;
  sent: number;
  stuck?: boolean | undefined;
  parts: ckpt_ring_part_entry[];
}

export interface ckpt_pipe_entry {
  pipe_id: number;
  packets: number[];
  external?: boolean | undefined;
  unconnected: number[];
  uid?: number | undefined;
  gid?: number | undefined;
  mode?: number | undefined;
}

export interface ckpt_poller_entry {
  number: number;
  idle: number;
  cpu?: number | undefined;
  credentials: number;
}

export interface ckpt_queue_entry {
  name: string;
  deleted?: boolean | undefined;
  inode: bigint;
  uid: number;
  gid: number;
  mode: number;
  max_messages: number;
  message_size: number;
  messages: ckpt_message_entry[];
  files: number[];
  shared?: boolean | undefined;
}

export interface ckpt_range_entry {
  start: bigint;
  end: bigint;
}

export interface ckpt_registration_entry {
  thread: number;
  index: number;
}

export interface ckpt_ring_entry {
  id: number;
  pid: number;
  flags: number;
  requests: number;
  results: number;
  taken: number;
  given: number;
  files: number[];
  buffers: ckpt_buffer_entry[];
  eventfd?: number | undefined;
  eventfd_async?: boolean | undefined;
  thread?: number | undefined;
  memory?: ckpt_ring_memory_entry | undefined;
  poller?: ckpt_poller_entry | undefined;
  registered_by: ckpt_registration_entry[];
}

export interface ckpt_ring_memory_entry {
  counters: bigint;
  counters_length: number;
  entries: bigint;
  entries_length: number;
}

export interface ckpt_ring_part_entry {
  offset: number;
  content: Uint8Array;
}

export interface ckpt_segment_entry {
  id: number;
  changed: bigint;
  made_with_key?: number | undefined;
  attached_outside?: boolean | undefined;
}

export interface ckpt_semaphore_undo_entry {
  set: number;
  adjustments: number[];
}

export interface ckpt_semaphore_undos_entry {
  sets: ckpt_semaphore_undo_entry[];
}

export interface ckpt_shared_port_entry {
  group: number;
  index: number;
  program?: Uint8Array | undefined;
}

export interface ckpt_snapshot_entry {
  subvolume: string;
  snapshot: string;
  parent: Uint8Array;
}

export interface ckpt_socket_entry {
  id: number;
  options: ckpt_socket_option[];
  peer?: ckpt_credentials_entry | undefined;
  uid?: number | undefined;
  gid?: number | undefined;
  pending: number[];
  reset?: boolean | undefined;
  packets: ckpt_packet_entry[];
  lost_peer?: boolean | undefined;
  other_names: string[];
  datagrams: ckpt_datagram_entry[];
  memberships: ckpt_membership_entry[];
  unread?: Uint8Array | undefined;
  interface?: string | undefined;
  type?: number | undefined;
  corked?: ckpt_corked_entry | undefined;
  waiting: ckpt_waiting_entry[];
  shared_port?: ckpt_shared_port_entry | undefined;
  unaccepted?: ckpt_unaccepted_entry | undefined;
  packet_rings?: ckpt_packet_rings_entry | undefined;
}

export interface ckpt_socket_option {
  level: number;
  name: number;
  value: Uint8Array;
}

export interface ckpt_sysctl_entry {
  name: string;
  value: string;
}

export interface ckpt_target_entry {
  index: number;
  file: number;
}

export interface ckpt_task_entry {
  personality?: number | undefined;
  threads: ckpt_thread_entry[];
  coredump_filter?: number | undefined;
  thp_disable_flags?: number | undefined;
  mdwe?: number | undefined;
  memory_merge?: boolean | undefined;
  xcomp_permissions?: bigint | undefined;
  lock_future?: number | undefined;
  areas: ckpt_area_entry[];
  cgroups: ckpt_cgroup_entry[];
  exit_signal?: number | undefined;
  stop_unreported?: boolean | undefined;
  inherited?: ckpt_inherited_entry | undefined;
  ended?: ckpt_ended_entry | undefined;
  shares_io_context?: boolean | undefined;
  shares_semaphore_undo?: boolean | undefined;
  ended_leader?: ckpt_ended_leader_entry | undefined;
  continue_unreported?: boolean | undefined;
  parent_thread?: number | undefined;
  cgroup_namespace?: ckpt_cgroup_namespace_entry | undefined;
  awaited?: boolean | undefined;
  semaphore_undos?: ckpt_semaphore_undos_entry | undefined;
}

export interface ckpt_terminal_entry {
  index: number;
  lines: ckpt_line_entry[];
  quotes_next?: boolean | undefined;
  typed?: Uint8Array | undefined;
  echoes?: Uint8Array | undefined;
  packet_status?: number | undefined;
  output_stopped?: number | undefined;
  input_stopped?: number | undefined;
  mode?: number | undefined;
  without: number[];
}

export interface ckpt_thread_entry {
  tid: number;
  timer_slack_ns?: bigint | undefined;
  affinity?: Uint8Array | undefined;
  xsave?: Uint8Array | undefined;
  sud_mode?: bigint | undefined;
  sud_selector?: bigint | undefined;
  sud_offset?: bigint | undefined;
  sud_len?: bigint | undefined;
  tsc_mode?: number | undefined;
  restart_left_ns?: bigint | undefined;
  io_priority?: number | undefined;
  speculation_store_bypass?: number | undefined;
  speculation_indirect_branch?: number | undefined;
  speculation_l1d_flush?: number | undefined;
  cpuid_forbidden?: boolean | undefined;
  machine_check_kill?: number | undefined;
  io_flusher?: boolean | undefined;
  utilization_min?: number | undefined;
  utilization_max?: number | undefined;
  time_slice_ns?: bigint | undefined;
}

export interface ckpt_tun_entry {
  name: string;
  flags: number;
  no_pi: boolean;
  header_size: number;
  send_buffer: number;
  offloads: number;
  little_endian?: boolean | undefined;
  big_endian?: boolean | undefined;
  link?: ckpt_tun_link_entry | undefined;
  id: number;
}

export interface ckpt_tun_link_entry {
  index: number;
  flags: number;
  mtu: number;
  queue_length: number;
  hardware_address?: Uint8Array | undefined;
  owner?: number | undefined;
  group?: number | undefined;
  addresses: Uint8Array[];
  routes: Uint8Array[];
  sysctls: ckpt_sysctl_entry[];
}

export interface ckpt_unaccepted_entry {
  index: number;
  received: Uint8Array;
}

export interface ckpt_waiting_entry {
  ino: number;
  uid: number;
  gid: number;
  sent: Uint8Array[];
}

export interface ckpt_watched_entry {
  index: number;
  number: number;
  file: number;
}

export interface ckpt_watches_entry {
  id: number;
  targets: ckpt_target_entry[];
  filesystems: ckpt_filesystem_mark_entry[];
  lost_events?: number | undefined;
}

export interface ckpt_xattr_entry {
  name: string;
  value: Uint8Array;
}

export interface core_entry {
  mtype: core_entry_march;
  thread_info?: thread_info_x86 | undefined;
  tc?: task_core_entry | undefined;
  ids?: task_kobj_ids_entry | undefined;
  thread_core?: thread_core_entry | undefined;
}

export interface cpuinfo_entry {
  x86_entry: cpuinfo_x86_entry[];
}

export interface cpuinfo_x86_entry {
  vendor_id: cpuinfo_x86_entry_vendor;
  cpu_family: number;
  model: number;
  stepping: number;
  capability_ver: number;
  capability: number[];
  model_id?: string | undefined;
  xfeatures_mask?: bigint | undefined;
  xsave_size?: number | undefined;
  xsave_size_max?: number | undefined;
}

export interface creds_entry {
  uid: number;
  gid: number;
  euid: number;
  egid: number;
  suid: number;
  sgid: number;
  fsuid: number;
  fsgid: number;
  cap_inh: number[];
  cap_prm: number[];
  cap_eff: number[];
  cap_bnd: number[];
  secbits: number;
  groups: number[];
  lsm_profile?: string | undefined;
  lsm_sockcreate?: string | undefined;
  apparmor_data?: Uint8Array | undefined;
  no_new_privs?: number | undefined;
  cap_amb: number[];
}

export interface dump_stats_entry {
  freezing_time: number;
  frozen_time: number;
  memdump_time: number;
  memwrite_time: number;
  pages_scanned: bigint;
  pages_skipped_parent: bigint;
  pages_written: bigint;
  irmap_resolve?: number | undefined;
  pages_lazy: bigint;
  page_pipes?: bigint | undefined;
  page_pipe_bufs?: bigint | undefined;
  shpages_scanned?: bigint | undefined;
  shpages_skipped_parent?: bigint | undefined;
  shpages_written?: bigint | undefined;
}

export interface eventfd_file_entry {
  id: number;
  flags: number;
  fown: fown_entry;
  counter: bigint;
}

export interface eventpoll_file_entry {
  id: number;
  flags: number;
  fown: fown_entry;
  tfd: eventpoll_tfd_entry[];
}

export interface eventpoll_tfd_entry {
  id: number;
  tfd: number;
  events: number;
  data: bigint;
  dev?: number | undefined;
  inode?: bigint | undefined;
  pos?: bigint | undefined;
}

export interface ext_file_entry {
  id: number;
  fown: fown_entry;
}

export interface fanotify_file_entry {
  id: number;
  flags: number;
  fown: fown_entry;
  faflags: number;
  evflags: number;
  mark: fanotify_mark_entry[];
}

export interface fanotify_inode_mark_entry {
  i_ino: bigint;
  f_handle: fh_entry;
}

export interface fanotify_mark_entry {
  id: number;
  type: mark_type;
  mflags: number;
  mask: number;
  ignored_mask: number;
  s_dev: number;
  ie?: fanotify_inode_mark_entry | undefined;
  me?: fanotify_mount_mark_entry | undefined;
}

export interface fanotify_mount_mark_entry {
  mnt_id: number;
  path?: string | undefined;
}

export interface fdinfo_entry {
  id: number;
  flags: number;
  type: fd_types;
  fd: number;
  xattr_security_selinux?: string | undefined;
}

export interface fh_entry {
  bytes: number;
  type: number;
  handle: bigint[];
  path?: string | undefined;
  mnt_id?: number | undefined;
}

export interface fifo_entry {
  id: number;
  pipe_id: number;
  regf_id?: number | undefined;
}

export interface file_entry {
  type: fd_types;
  id: number;
  reg?: reg_file_entry | undefined;
  isk?: inet_sk_entry | undefined;
  nsf?: ns_file_entry | undefined;
  psk?: packet_sock_entry | undefined;
  nlsk?: netlink_sk_entry | undefined;
  efd?: eventfd_file_entry | undefined;
  epfd?: eventpoll_file_entry | undefined;
  sgfd?: signalfd_entry | undefined;
  tunf?: tunfile_entry | undefined;
  tfd?: timerfd_entry | undefined;
  ify?: inotify_file_entry | undefined;
  ffy?: fanotify_file_entry | undefined;
  ext?: ext_file_entry | undefined;
  usk?: unix_sk_entry | undefined;
  fifo?: fifo_entry | undefined;
  pipe?: pipe_entry | undefined;
  tty?: tty_file_entry | undefined;
  memfd?: memfd_file_entry | undefined;
  bpf?: bpfmap_file_entry | undefined;
  pidfd?: pidfd_entry | undefined;
}

export interface file_lock_entry {
  flag: number;
  type: number;
  pid: number;
  fd: number;
  start: bigint;
  len: bigint;
}

export interface file_perms_entry {
  mode: number;
  uid: number;
  gid: number;
}

export interface fown_entry {
  uid: number;
  euid: number;
  signum: number;
  pid_type: number;
  pid: number;
}

export interface fs_entry {
  cwd_id: number;
  root_id: number;
  umask?: number | undefined;
}

export interface ghost_chunk_entry {
  len: bigint;
  off: bigint;
}

export interface ghost_file_entry {
  uid: number;
  gid: number;
  mode: number;
  dev?: number | undefined;
  ino?: bigint | undefined;
  rdev?: number | undefined;
  atim?: timeval | undefined;
  mtim?: timeval | undefined;
  chunks?: boolean | undefined;
  size?: bigint | undefined;
  symlnk_target?: string | undefined;
}

export interface inet_sk_entry {
  id: number;
  ino: number;
  family: number;
  type: number;
  proto: number;
  state: number;
  src_port: number;
  dst_port: number;
  flags: number;
  backlog: number;
  src_addr: number[];
  dst_addr: number[];
  fown: fown_entry;
  opts: sk_opts_entry;
  v6only?: boolean | undefined;
  ip_opts?: ip_opts_entry | undefined;
  ifname?: string | undefined;
  ns_id?: number | undefined;
  shutdown?: sk_shutdown | undefined;
  tcp_opts?: tcp_opts_entry | undefined;
}

export interface inotify_file_entry {
  id: number;
  flags: number;
  fown: fown_entry;
  wd: inotify_wd_entry[];
}

export interface inotify_wd_entry {
  id: number;
  i_ino: bigint;
  mask: number;
  ignored_mask: number;
  s_dev: number;
  wd: number;
  f_handle: fh_entry;
}

export interface inventory_entry {
  img_version: number;
  fdinfo_per_id?: boolean | undefined;
  root_ids?: task_kobj_ids_entry | undefined;
  ns_per_id?: boolean | undefined;
  root_cg_set?: number | undefined;
  lsmtype?: lsmtype | undefined;
  dump_uptime?: bigint | undefined;
  pre_dump_mode?: number | undefined;
  tcp_close?: boolean | undefined;
  network_lock_method?: number | undefined;
  plugins_entry?: plugins_entry | undefined;
  dump_criu_run_id?: string | undefined;
  allow_uprobes?: boolean | undefined;
}

export interface ip_opts_entry {
  freebind?: boolean | undefined;
  raw?: ip_opts_raw_entry | undefined;
  pktinfo?: boolean | undefined;
  tos?: number | undefined;
  ttl?: number | undefined;
}

export interface ip_opts_raw_entry {
  hdrincl?: boolean | undefined;
  nodefrag?: boolean | undefined;
  checksum?: boolean | undefined;
  icmpv_filter: number[];
}

export interface ipc_desc_entry {
  key: number;
  uid: number;
  gid: number;
  cuid: number;
  cgid: number;
  mode: number;
  id: number;
}

export interface ipc_msg {
  mtype: bigint;
  msize: number;
}

export interface ipc_msg_entry {
  desc: ipc_desc_entry;
  qbytes: number;
  qnum: number;
}

export interface ipc_sem_entry {
  desc: ipc_desc_entry;
  nsems: number;
}

export interface ipc_shm_entry {
  desc: ipc_desc_entry;
  size: bigint;
  in_pagemaps?: boolean | undefined;
  hugetlb_flag?: number | undefined;
}

export interface ipc_var_entry {
  sem_ctls: number[];
  msg_ctlmax: number;
  msg_ctlmnb: number;
  msg_ctlmni: number;
  auto_msgmni: number;
  shm_ctlmax: bigint;
  shm_ctlall: bigint;
  shm_ctlmni: number;
  shm_rmid_forced: number;
  mq_queues_max: number;
  mq_msg_max: number;
  mq_msgsize_max: number;
  mq_msg_default?: number | undefined;
  mq_msgsize_default?: number | undefined;
  msg_next_id?: number | undefined;
  sem_next_id?: number | undefined;
  shm_next_id?: number | undefined;
}

export interface irmap_cache_entry {
  dev: number;
  inode: bigint;
  path: string;
}

export interface itimer_entry {
  isec: bigint;
  iusec: bigint;
  vsec: bigint;
  vusec: bigint;
}

export interface macvlan_link_entry {
  mode: number;
  flags?: number | undefined;
}

export interface memfd_file_entry {
  id: number;
  flags: number;
  pos: bigint;
  fown: fown_entry;
  inode_id: number;
}

export interface memfd_inode_entry {
  name: string;
  uid: number;
  gid: number;
  size: bigint;
  shmid: number;
  seals: number;
  inode_id: bigint;
  hugetlb_flag?: number | undefined;
  mode?: number | undefined;
}

export interface mm_entry {
  mm_start_code: bigint;
  mm_end_code: bigint;
  mm_start_data: bigint;
  mm_end_data: bigint;
  mm_start_stack: bigint;
  mm_start_brk: bigint;
  mm_brk: bigint;
  mm_arg_start: bigint;
  mm_arg_end: bigint;
  mm_env_start: bigint;
  mm_env_end: bigint;
  exe_file_id: number;
  mm_saved_auxv: bigint[];
  vmas: vma_entry[];
  dumpable?: number | undefined;
  aios: aio_ring_entry[];
  thp_disabled?: boolean | undefined;
}

export interface mnt_entry {
  fstype: number;
  mnt_id: number;
  root_dev: number;
  parent_mnt_id: number;
  flags: number;
  root: string;
  mountpoint: string;
  source: string;
  options: string;
  shared_id?: number | undefined;
  master_id?: number | undefined;
  with_plugin?: boolean | undefined;
  ext_mount?: boolean | undefined;
  fsname?: string | undefined;
  internal_sharing?: boolean | undefined;
  deleted?: boolean | undefined;
  sb_flags?: number | undefined;
  ext_key?: string | undefined;
}

export interface net_device_entry {
  type: nd_type;
  ifindex: number;
  mtu: number;
  flags: number;
  name: string;
  tun?: tun_link_entry | undefined;
  address?: Uint8Array | undefined;
  conf: number[];
  conf4: sysctl_entry[];
  conf6: sysctl_entry[];
  macvlan?: macvlan_link_entry | undefined;
  peer_ifindex?: number | undefined;
  peer_nsid?: number | undefined;
  master?: number | undefined;
  sit?: sit_entry | undefined;
}

export interface netlink_sk_entry {
  id: number;
  ino: number;
  protocol: number;
  state: number;
  flags: number;
  portid: number;
  groups: number[];
  dst_portid: number;
  dst_group: number;
  fown: fown_entry;
  opts: sk_opts_entry;
  ns_id?: number | undefined;
}

export interface netns_entry {
  def_conf: number[];
  all_conf: number[];
  def_conf4: sysctl_entry[];
  all_conf4: sysctl_entry[];
  def_conf6: sysctl_entry[];
  all_conf6: sysctl_entry[];
  nsids: netns_id[];
  ext_key?: string | undefined;
  unix_conf: sysctl_entry[];
  ipv4_sysctl: sysctl_entry[];
}

export interface netns_id {
  target_ns_id: number;
  netnsid_value: number;
}

export interface ns_file_entry {
  id: number;
  ns_id: number;
  ns_cflag: number;
  flags: number;
}

export interface packet_mclist {
  index: number;
  type: number;
  addr: Uint8Array;
}

export interface packet_ring {
  block_size: number;
  block_nr: number;
  frame_size: number;
  frame_nr: number;
  retire_tmo: number;
  sizeof_priv: number;
  features: number;
}

export interface packet_sock_entry {
  id: number;
  type: number;
  protocol: number;
  flags: number;
  ifindex: number;
  fown: fown_entry;
  opts: sk_opts_entry;
  version: number;
  reserve: number;
  aux_data: boolean;
  orig_dev: boolean;
  vnet_hdr: boolean;
  loss: boolean;
  timestamp: number;
  copy_thresh: number;
  mclist: packet_mclist[];
  /** Absent means 4294967295. */
  fanout?: number | undefined;
  rx_ring?: packet_ring | undefined;
  tx_ring?: packet_ring | undefined;
  ns_id?: number | undefined;
}

export interface pagemap_entry {
  vaddr: bigint;
  compat_nr_pages: number;
  in_parent?: boolean | undefined;
  flags?: number | undefined;
  nr_pages?: bigint | undefined;
}

export interface pagemap_head {
  pages_id: number;
}

export interface pidfd_entry {
  id: number;
  ino: number;
  flags: number;
  nspid: number;
  fown: fown_entry;
}

export interface pidns_entry {
  ext_key?: string | undefined;
}

export interface pipe_data_entry {
  pipe_id: number;
  bytes: number;
  size?: number | undefined;
}

export interface pipe_entry {
  id: number;
  pipe_id: number;
  flags: number;
  fown: fown_entry;
}

export interface plugins_entry {
  plugins: string[];
}

export interface posix_timer_entry {
  it_id: number;
  clock_id: number;
  si_signo: number;
  it_sigev_notify: number;
  sival_ptr: bigint;
  overrun: number;
  isec: bigint;
  insec: bigint;
  vsec: bigint;
  vnsec: bigint;
  notify_thread_id?: number | undefined;
}

export interface pstree_entry {
  pid: number;
  ppid: number;
  pgid: number;
  sid: number;
  threads: number[];
}

export interface reg_file_entry {
  id: number;
  flags: number;
  pos: bigint;
  fown: fown_entry;
  name: string;
  /** Absent means -1. */
  mnt_id?: number | undefined;
  size?: bigint | undefined;
  ext?: boolean | undefined;
  mode?: number | undefined;
  build_id: number[];
  checksum?: number | undefined;
  checksum_config?: number | undefined;
  checksum_parameter?: number | undefined;
}

export interface remap_file_path_entry {
  orig_id: number;
  remap_id: number;
  remap_type?: remap_type | undefined;
}

export interface restore_stats_entry {
  pages_compared: bigint;
  pages_skipped_cow: bigint;
  forking_time: number;
  restore_time: number;
  pages_restored?: bigint | undefined;
}

export interface rlimit_entry {
  cur: bigint;
  max: bigint;
}

export interface rseq_entry {
  rseq_abi_pointer: bigint;
  rseq_abi_size: number;
  signature: number;
  rseq_cs_pointer?: bigint | undefined;
}

export interface sa_entry {
  sigaction: bigint;
  flags: bigint;
  restorer: bigint;
  mask: bigint;
  compat_sigaction?: boolean | undefined;
  mask_extended?: bigint | undefined;
}

export interface scm_entry {
  type: number;
  rights: number[];
}

export interface seccomp_entry {
  seccomp_filters: seccomp_filter[];
}

export interface seccomp_filter {
  filter: Uint8Array;
  prev?: number | undefined;
  flags?: number | undefined;
}

export interface siginfo_entry {
  siginfo: Uint8Array;
}

export interface signal_queue_entry {
  signals: siginfo_entry[];
}

export interface signalfd_entry {
  id: number;
  flags: number;
  fown: fown_entry;
  sigmask: bigint;
}

export interface sit_entry {
  link?: number | undefined;
  local: number[];
  remote: number[];
  ttl?: number | undefined;
  tos?: number | undefined;
  pmtudisc?: boolean | undefined;
  proto?: number | undefined;
  flags?: number | undefined;
  encap_type?: number | undefined;
  encap_flags?: number | undefined;
  encap_sport?: number | undefined;
  encap_dport?: number | undefined;
  rd_prefixlen?: number | undefined;
  rd_prefix: number[];
  relay_prefixlen?: number | undefined;
  relay_prefix: number[];
}

export interface sk_opts_entry {
  so_sndbuf: number;
  so_rcvbuf: number;
  so_snd_tmo_sec: bigint;
  so_snd_tmo_usec: bigint;
  so_rcv_tmo_sec: bigint;
  so_rcv_tmo_usec: bigint;
  reuseaddr?: boolean | undefined;
  so_priority?: number | undefined;
  so_rcvlowat?: number | undefined;
  so_mark?: number | undefined;
  so_passcred?: boolean | undefined;
  so_passsec?: boolean | undefined;
  so_dontroute?: boolean | undefined;
  so_no_check?: boolean | undefined;
  so_bound_dev?: string | undefined;
  so_filter: bigint[];
  so_reuseport?: boolean | undefined;
  so_broadcast?: boolean | undefined;
  so_keepalive?: boolean | undefined;
  tcp_keepcnt?: number | undefined;
  tcp_keepidle?: number | undefined;
  tcp_keepintvl?: number | undefined;
  so_oobinline?: number | undefined;
  so_linger?: number | undefined;
  so_buf_lock?: number | undefined;
}

export interface sk_packet_entry {
  id_for: number;
  length: number;
  scm: scm_entry[];
}

export interface stats_entry {
  dump?: dump_stats_entry | undefined;
  restore?: restore_stats_entry | undefined;
}

export interface sysctl_entry {
  type: SysctlType;
  iarg?: number | undefined;
  sarg?: string | undefined;
}

export interface task_core_entry {
  task_state: number;
  exit_code: number;
  personality: number;
  flags: number;
  blk_sigset: bigint;
  comm: string;
  timers?: task_timers_entry | undefined;
  rlimits?: task_rlimits_entry | undefined;
  cg_set?: number | undefined;
  signals_s?: signal_queue_entry | undefined;
  old_seccomp_mode?: seccomp_mode | undefined;
  old_seccomp_filter?: number | undefined;
  loginuid?: number | undefined;
  oom_score_adj?: number | undefined;
  sigactions: sa_entry[];
  child_subreaper?: boolean | undefined;
  blk_sigset_extended?: bigint | undefined;
  stop_signo?: number | undefined;
  membarrier_registration_mask?: number | undefined;
}

export interface task_kobj_ids_entry {
  vm_id: number;
  files_id: number;
  fs_id: number;
  sighand_id: number;
  pid_ns_id?: number | undefined;
  net_ns_id?: number | undefined;
  ipc_ns_id?: number | undefined;
  uts_ns_id?: number | undefined;
  mnt_ns_id?: number | undefined;
  user_ns_id?: number | undefined;
  cgroup_ns_id?: number | undefined;
  time_ns_id?: number | undefined;
}

export interface task_rlimits_entry {
  rlimits: rlimit_entry[];
}

export interface task_timers_entry {
  real: itimer_entry;
  virt: itimer_entry;
  prof: itimer_entry;
  posix: posix_timer_entry[];
}

export interface tcp_opts_entry {
  cork?: boolean | undefined;
  nodelay?: boolean | undefined;
  keepcnt?: number | undefined;
  keepidle?: number | undefined;
  keepintvl?: number | undefined;
}

export interface tcp_stream_entry {
  inq_len: number;
  inq_seq: number;
  outq_len: number;
  outq_seq: number;
  opt_mask: number;
  snd_wscale: number;
  mss_clamp: number;
  rcv_wscale?: number | undefined;
  timestamp?: number | undefined;
  cork?: boolean | undefined;
  nodelay?: boolean | undefined;
  unsq_len?: number | undefined;
  snd_wl1?: number | undefined;
  snd_wnd?: number | undefined;
  max_window?: number | undefined;
  rcv_wnd?: number | undefined;
  rcv_wup?: number | undefined;
}

export interface termios_entry {
  c_iflag: number;
  c_oflag: number;
  c_cflag: number;
  c_lflag: number;
  c_line: number;
  c_ispeed: number;
  c_ospeed: number;
  c_cc: number[];
}

export interface thread_core_entry {
  futex_rla: bigint;
  futex_rla_len: number;
  sched_nice?: number | undefined;
  sched_policy?: number | undefined;
  sched_prio?: number | undefined;
  blk_sigset?: bigint | undefined;
  sas?: thread_sas_entry | undefined;
  pdeath_sig?: number | undefined;
  signals_p?: signal_queue_entry | undefined;
  creds?: creds_entry | undefined;
  seccomp_mode?: seccomp_mode | undefined;
  seccomp_filter?: number | undefined;
  comm?: string | undefined;
  blk_sigset_extended?: bigint | undefined;
  rseq_entry?: rseq_entry | undefined;
  cg_set?: number | undefined;
}

export interface thread_info_x86 {
  clear_tid_addr: bigint;
  gpregs: user_x86_regs_entry;
  fpregs: user_x86_fpregs_entry;
  tls: user_desc_t[];
}

export interface thread_sas_entry {
  ss_sp: bigint;
  ss_size: bigint;
  ss_flags: number;
}

export interface timens_entry {
  monotonic: timespec;
  boottime: timespec;
}

export interface timerfd_entry {
  id: number;
  flags: number;
  fown: fown_entry;
  clockid: number;
  ticks: bigint;
  settime_flags: number;
  vsec: bigint;
  vnsec: bigint;
  isec: bigint;
  insec: bigint;
}

export interface timespec {
  tv_sec: bigint;
  tv_nsec: bigint;
}

export interface timeval {
  tv_sec: bigint;
  tv_usec: bigint;
}

export interface tty_data_entry {
  tty_id: number;
  data: Uint8Array;
}

export interface tty_file_entry {
  id: number;
  tty_info_id: number;
  flags: number;
  fown: fown_entry;
  regf_id?: number | undefined;
}

export interface tty_info_entry {
  id: number;
  type: TtyType;
  locked: boolean;
  exclusive: boolean;
  packet_mode: boolean;
  sid: number;
  pgrp: number;
  rdev: number;
  termios?: termios_entry | undefined;
  termios_locked?: termios_entry | undefined;
  winsize?: winsize_entry | undefined;
  pty?: tty_pty_entry | undefined;
  dev?: number | undefined;
  uid?: number | undefined;
  gid?: number | undefined;
}

export interface tty_pty_entry {
  index: number;
}

export interface tun_link_entry {
  flags: number;
  owner: number;
  group: number;
  vnethdr: number;
  sndbuf: number;
}

export interface tunfile_entry {
  id: number;
  netdev?: string | undefined;
  detached?: boolean | undefined;
  ns_id?: number | undefined;
}

export interface uid_gid_extent {
  first: number;
  lower_first: number;
  count: number;
}

export interface unix_sk_entry {
  id: number;
  ino: number;
  type: number;
  state: number;
  flags: number;
  uflags: number;
  backlog: number;
  peer: number;
  fown: fown_entry;
  opts: sk_opts_entry;
  name: Uint8Array;
  shutdown?: sk_shutdown | undefined;
  file_perms?: file_perms_entry | undefined;
  name_dir?: string | undefined;
  deleted?: boolean | undefined;
  ns_id?: number | undefined;
  /** Absent means -1. */
  mnt_id?: number | undefined;
}

export interface user_desc_t {
  entry_number: number;
  base_addr: number;
  limit: number;
  seg_32bit: boolean;
  contents_h: boolean;
  contents_l: boolean;
  /** Absent means true. */
  read_exec_only: boolean;
  limit_in_pages: boolean;
  /** Absent means true. */
  seg_not_present: boolean;
  usable: boolean;
}

export interface user_x86_cet_entry {
  cet: bigint;
  ssp: bigint;
}

export interface user_x86_fpregs_entry {
  cwd: number;
  swd: number;
  twd: number;
  fop: number;
  rip: bigint;
  rdp: bigint;
  mxcsr: number;
  mxcsr_mask: number;
  st_space: number[];
  xmm_space: number[];
  padding: number[];
  xsave?: user_x86_xsave_entry | undefined;
}

export interface user_x86_regs_entry {
  r15: bigint;
  r14: bigint;
  r13: bigint;
  r12: bigint;
  bp: bigint;
  bx: bigint;
  r11: bigint;
  r10: bigint;
  r9: bigint;
  r8: bigint;
  ax: bigint;
  cx: bigint;
  dx: bigint;
  si: bigint;
  di: bigint;
  orig_ax: bigint;
  ip: bigint;
  cs: bigint;
  flags: bigint;
  sp: bigint;
  ss: bigint;
  fs_base: bigint;
  gs_base: bigint;
  ds: bigint;
  es: bigint;
  fs: bigint;
  gs: bigint;
  /** Absent means NATIVE. */
  mode?: user_x86_regs_mode | undefined;
}

export interface user_x86_xsave_entry {
  xstate_bv: bigint;
  ymmh_space: number[];
  bndreg_state: bigint[];
  bndcsr_state: bigint[];
  opmask_reg: bigint[];
  zmm_upper: bigint[];
  hi16_zmm: bigint[];
  pkru: number[];
  cet?: user_x86_cet_entry | undefined;
}

export interface userns_entry {
  uid_map: uid_gid_extent[];
  gid_map: uid_gid_extent[];
}

export interface utsns_entry {
  nodename: string;
  domainname: string;
}

export interface vma_entry {
  start: bigint;
  end: bigint;
  pgoff: bigint;
  shmid: bigint;
  prot: number;
  flags: number;
  status: number;
  fd: bigint;
  madv?: bigint | undefined;
  fdflags?: number | undefined;
}

export interface winsize_entry {
  ws_row: number;
  ws_col: number;
  ws_xpixel: number;
  ws_ypixel: number;
}

/** Every message by its name. */
export interface Messages {
  aa_namespace: aa_namespace;
  aa_policy: aa_policy;
  aio_ring_entry: aio_ring_entry;
  apparmor_entry: apparmor_entry;
  autofs_entry: autofs_entry;
  binfmt_misc_entry: binfmt_misc_entry;
  bpfmap_data_entry: bpfmap_data_entry;
  bpfmap_file_entry: bpfmap_file_entry;
  cg_controller_entry: cg_controller_entry;
  cg_member_entry: cg_member_entry;
  cg_set_entry: cg_set_entry;
  cgroup_dir_entry: cgroup_dir_entry;
  cgroup_entry: cgroup_entry;
  cgroup_perms: cgroup_perms;
  cgroup_prop_entry: cgroup_prop_entry;
  ckpt_area_entry: ckpt_area_entry;
  ckpt_buffer_entry: ckpt_buffer_entry;
  ckpt_cgroup_entry: ckpt_cgroup_entry;
  ckpt_cgroup_namespace_entry: ckpt_cgroup_namespace_entry;
  ckpt_corked_entry: ckpt_corked_entry;
  ckpt_credentials_entry: ckpt_credentials_entry;
  ckpt_datagram_entry: ckpt_datagram_entry;
  ckpt_ended_entry: ckpt_ended_entry;
  ckpt_ended_leader_entry: ckpt_ended_leader_entry;
  ckpt_file_entry: ckpt_file_entry;
  ckpt_filesystem_mark_entry: ckpt_filesystem_mark_entry;
  ckpt_ghost_entry: ckpt_ghost_entry;
  ckpt_inherited_entry: ckpt_inherited_entry;
  ckpt_layer_entry: ckpt_layer_entry;
  ckpt_line_entry: ckpt_line_entry;
  ckpt_membership_entry: ckpt_membership_entry;
  ckpt_message_entry: ckpt_message_entry;
  ckpt_mount_entry: ckpt_mount_entry;
  ckpt_packet_entry: ckpt_packet_entry;
  ckpt_packet_rings_entry: ckpt_packet_rings_entry;
  ckpt_pipe_entry: ckpt_pipe_entry;
  ckpt_poller_entry: ckpt_poller_entry;
  ckpt_queue_entry: ckpt_queue_entry;
  ckpt_range_entry: ckpt_range_entry;
  ckpt_registration_entry: ckpt_registration_entry;
  ckpt_ring_entry: ckpt_ring_entry;
  ckpt_ring_memory_entry: ckpt_ring_memory_entry;
  ckpt_ring_part_entry: ckpt_ring_part_entry;
  ckpt_segment_entry: ckpt_segment_entry;
  ckpt_semaphore_undo_entry: ckpt_semaphore_undo_entry;
  ckpt_semaphore_undos_entry: ckpt_semaphore_undos_entry;
  ckpt_shared_port_entry: ckpt_shared_port_entry;
  ckpt_snapshot_entry: ckpt_snapshot_entry;
  ckpt_socket_entry: ckpt_socket_entry;
  ckpt_socket_option: ckpt_socket_option;
  ckpt_sysctl_entry: ckpt_sysctl_entry;
  ckpt_target_entry: ckpt_target_entry;
  ckpt_task_entry: ckpt_task_entry;
  ckpt_terminal_entry: ckpt_terminal_entry;
  ckpt_thread_entry: ckpt_thread_entry;
  ckpt_tun_entry: ckpt_tun_entry;
  ckpt_tun_link_entry: ckpt_tun_link_entry;
  ckpt_unaccepted_entry: ckpt_unaccepted_entry;
  ckpt_waiting_entry: ckpt_waiting_entry;
  ckpt_watched_entry: ckpt_watched_entry;
  ckpt_watches_entry: ckpt_watches_entry;
  ckpt_xattr_entry: ckpt_xattr_entry;
  core_entry: core_entry;
  cpuinfo_entry: cpuinfo_entry;
  cpuinfo_x86_entry: cpuinfo_x86_entry;
  creds_entry: creds_entry;
  dump_stats_entry: dump_stats_entry;
  eventfd_file_entry: eventfd_file_entry;
  eventpoll_file_entry: eventpoll_file_entry;
  eventpoll_tfd_entry: eventpoll_tfd_entry;
  ext_file_entry: ext_file_entry;
  fanotify_file_entry: fanotify_file_entry;
  fanotify_inode_mark_entry: fanotify_inode_mark_entry;
  fanotify_mark_entry: fanotify_mark_entry;
  fanotify_mount_mark_entry: fanotify_mount_mark_entry;
  fdinfo_entry: fdinfo_entry;
  fh_entry: fh_entry;
  fifo_entry: fifo_entry;
  file_entry: file_entry;
  file_lock_entry: file_lock_entry;
  file_perms_entry: file_perms_entry;
  fown_entry: fown_entry;
  fs_entry: fs_entry;
  ghost_chunk_entry: ghost_chunk_entry;
  ghost_file_entry: ghost_file_entry;
  inet_sk_entry: inet_sk_entry;
  inotify_file_entry: inotify_file_entry;
  inotify_wd_entry: inotify_wd_entry;
  inventory_entry: inventory_entry;
  ip_opts_entry: ip_opts_entry;
  ip_opts_raw_entry: ip_opts_raw_entry;
  ipc_desc_entry: ipc_desc_entry;
  ipc_msg: ipc_msg;
  ipc_msg_entry: ipc_msg_entry;
  ipc_sem_entry: ipc_sem_entry;
  ipc_shm_entry: ipc_shm_entry;
  ipc_var_entry: ipc_var_entry;
  irmap_cache_entry: irmap_cache_entry;
  itimer_entry: itimer_entry;
  macvlan_link_entry: macvlan_link_entry;
  memfd_file_entry: memfd_file_entry;
  memfd_inode_entry: memfd_inode_entry;
  mm_entry: mm_entry;
  mnt_entry: mnt_entry;
  net_device_entry: net_device_entry;
  netlink_sk_entry: netlink_sk_entry;
  netns_entry: netns_entry;
  netns_id: netns_id;
  ns_file_entry: ns_file_entry;
  packet_mclist: packet_mclist;
  packet_ring: packet_ring;
  packet_sock_entry: packet_sock_entry;
  pagemap_entry: pagemap_entry;
  pagemap_head: pagemap_head;
  pidfd_entry: pidfd_entry;
  pidns_entry: pidns_entry;
  pipe_data_entry: pipe_data_entry;
  pipe_entry: pipe_entry;
  plugins_entry: plugins_entry;
  posix_timer_entry: posix_timer_entry;
  pstree_entry: pstree_entry;
  reg_file_entry: reg_file_entry;
  remap_file_path_entry: remap_file_path_entry;
  restore_stats_entry: restore_stats_entry;
  rlimit_entry: rlimit_entry;
  rseq_entry: rseq_entry;
  sa_entry: sa_entry;
  scm_entry: scm_entry;
  seccomp_entry: seccomp_entry;
  seccomp_filter: seccomp_filter;
  siginfo_entry: siginfo_entry;
  signal_queue_entry: signal_queue_entry;
  signalfd_entry: signalfd_entry;
  sit_entry: sit_entry;
  sk_opts_entry: sk_opts_entry;
  sk_packet_entry: sk_packet_entry;
  stats_entry: stats_entry;
  sysctl_entry: sysctl_entry;
  task_core_entry: task_core_entry;
  task_kobj_ids_entry: task_kobj_ids_entry;
  task_rlimits_entry: task_rlimits_entry;
  task_timers_entry: task_timers_entry;
  tcp_opts_entry: tcp_opts_entry;
  tcp_stream_entry: tcp_stream_entry;
  termios_entry: termios_entry;
  thread_core_entry: thread_core_entry;
  thread_info_x86: thread_info_x86;
  thread_sas_entry: thread_sas_entry;
  timens_entry: timens_entry;
  timerfd_entry: timerfd_entry;
  timespec: timespec;
  timeval: timeval;
  tty_data_entry: tty_data_entry;
  tty_file_entry: tty_file_entry;
  tty_info_entry: tty_info_entry;
  tty_pty_entry: tty_pty_entry;
  tun_link_entry: tun_link_entry;
  tunfile_entry: tunfile_entry;
  uid_gid_extent: uid_gid_extent;
  unix_sk_entry: unix_sk_entry;
  user_desc_t: user_desc_t;
  user_x86_cet_entry: user_x86_cet_entry;
  user_x86_fpregs_entry: user_x86_fpregs_entry;
  user_x86_regs_entry: user_x86_regs_entry;
  user_x86_xsave_entry: user_x86_xsave_entry;
  userns_entry: userns_entry;
  utsns_entry: utsns_entry;
  vma_entry: vma_entry;
  winsize_entry: winsize_entry;
}

/** Every enumeration by its name. */
export const ENUMS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  SysctlType,
  TtyType,
  ckpt_layer_entry_roles,
  core_entry_march,
  cpuinfo_x86_entry_vendor,
  fd_types,
  fh_entry_sizes,
  fstype,
  lsmtype,
  mark_type,
  nd_type,
  remap_type,
  seccomp_mode,
  sk_shutdown,
  user_x86_regs_mode,
};

/**
 * Fields of every message: number, then ! required, ? optional or * repeated,
 * then the type (@ a message, # an enumeration) and the name.
 */
export const SCHEMA: Readonly<Record<keyof Messages, string>> = {
  aa_namespace: "1!string name,2*@aa_policy policies,3*@aa_namespace namespaces",
  aa_policy: "1!string name,2!bytes blob",
  aio_ring_entry: "1!uint64 id,2!uint32 nr_req,3!uint32 ring_len",
  apparmor_entry: "1*@aa_namespace namespaces",
  autofs_entry: "1!int32 fd,2!int32 pgrp,3!int32 timeout,4!int32 minproto,5!int32 maxproto,6!int32 mode,7?int32 uid,8?int32 gid,9?int32 read_fd",
  binfmt_misc_entry: "1!string name,2!bool enabled,3!string interpreter,4?string flags,5?string extension,6?string magic,7?string mask,8?int32 offset",
  bpfmap_data_entry: "1!uint32 map_id,2!uint32 keys_bytes,3!uint32 values_bytes,4!uint32 count",
  bpfmap_file_entry: "1!uint32 id,2!uint32 flags,3!uint64 pos,4!@fown_entry fown,5!uint32 map_type,6!uint32 key_size,7!uint32 value_size,8!uint32 map_id,9!uint32 max_entries,10!uint32 map_flags,11!uint64 memlock,12!bool frozen,13!string map_name,14!uint32 ifindex,15?sint32 mnt_id,16?uint64 map_extra",
  cg_controller_entry: "1*string cnames,2*@cgroup_dir_entry dirs,3?bool is_threaded",
  cg_member_entry: "1!string name,2!string path,3?uint32 cgns_prefix",
  cg_set_entry: "1!uint32 id,2*@cg_member_entry ctls",
  cgroup_dir_entry: "1!string dir_name,2*@cgroup_dir_entry children,3*@cgroup_prop_entry properties,4?@cgroup_perms dir_perms",
  cgroup_entry: "1*@cg_set_entry sets,2*@cg_controller_entry controllers",
  cgroup_perms: "1!uint32 mode,2!uint32 uid,3!uint32 gid",
  cgroup_prop_entry: "1!string name,2!string value,3?@cgroup_perms perms",
  ckpt_area_entry: "1!uint64 start,2?bool lock_on_fault,3?bool sealed,4?string name,5?uint32 flock",
  ckpt_buffer_entry: "1!uint64 start,2!uint32 length",
  ckpt_cgroup_entry: "1!string controllers,2!string path",
  ckpt_cgroup_namespace_entry: "1*@ckpt_cgroup_entry roots",
  ckpt_corked_entry: "1!bytes content,2!bytes destination,3?uint32 hops,4?uint32 traffic_class",
  ckpt_credentials_entry: "1!uint32 pid,2!uint32 uid,3!uint32 gid",
  ckpt_datagram_entry: "1!bytes content,2!bytes source",
  ckpt_ended_entry: "1!uint32 uid,2!uint32 euid,3!uint32 suid,4!uint32 gid,5!uint32 egid,6!uint32 sgid",
  ckpt_ended_leader_entry: "1!uint32 status",
  ckpt_file_entry: "1!uint32 id,2?bool semaphore,3*@ckpt_watched_entry watched,4?uint64 device,5?bytes busy_polling,20?uint64 modified_s,21?uint32 modified_ns,22?bytes digest,23?uint64 digest_bytes",
  ckpt_filesystem_mark_entry: "1!uint32 index,2!uint32 mflags,3!uint32 mask,4!uint32 ignored_mask,5!string path",
  ckpt_ghost_entry: "1!uint32 ghost_id,2*@ckpt_xattr_entry xattrs,3?uint32 inode_flags,4?uint32 atime_ns,5?uint32 mtime_ns,6*@ckpt_range_entry allocated,7?uint32 parent,8?uint32 project",
  ckpt_inherited_entry: "1*@ckpt_range_entry ranges",
  ckpt_layer_entry: "1!#ckpt_layer_entry_roles role,2!uint32 mnt_id,3!string path,4?bytes handle,5?int32 handle_type,6?bool trusted",
  ckpt_line_entry: "1!uint32 length,2?bool ended_by_eof",
  ckpt_membership_entry: "1!uint32 family,2!bytes group,3!string interface,4!uint32 mode,5*bytes sources",
  ckpt_message_entry: "1!uint32 priority,2!bytes data",
  ckpt_mount_entry: "1!uint32 mnt_id,2?string type,3?string host_path,4?string peer_path,5?string master_path,6*@ckpt_layer_entry layers,7?uint32 removed,8?@mnt_entry detached",
  ckpt_packet_entry: "1?@ckpt_credentials_entry sender,2?bytes name",
  ckpt_packet_rings_entry: "1!uint32 received,2!uint32 sent,3?bool stuck,4*@ckpt_ring_part_entry parts",
  ckpt_pipe_entry: "1!uint32 pipe_id,2*uint32 packets,3?bool external,4*uint32 unconnected,5?uint32 uid,6?uint32 gid,7?uint32 mode",
  ckpt_poller_entry: "1!uint32 number,2!uint32 idle,3?uint32 cpu,4!uint32 credentials",
  ckpt_queue_entry: "1!string name,2?bool deleted,3!uint64 inode,4!uint32 uid,5!uint32 gid,6!uint32 mode,7!uint32 max_messages,8!uint32 message_size,9*@ckpt_message_entry messages,10*uint32 files,11?bool shared",
  ckpt_range_entry: "1!uint64 start,2!uint64 end",
  ckpt_registration_entry: "1!uint32 thread,2!uint32 index",
  ckpt_ring_entry: "1!uint32 id,2!uint32 pid,3!uint32 flags,4!uint32 requests,5!uint32 results,6!uint32 taken,7!uint32 given,8*int32 files,9*@ckpt_buffer_entry buffers,10?uint32 eventfd,11?bool eventfd_async,12?uint32 thread,13?@ckpt_ring_memory_entry memory,14?@ckpt_poller_entry poller,15*@ckpt_registration_entry registered_by",
  ckpt_ring_memory_entry: "1!uint64 counters,2!uint32 counters_length,3!uint64 entries,4!uint32 entries_length",
  ckpt_ring_part_entry: "1!uint32 offset,2!bytes content",
  ckpt_segment_entry: "1!uint32 id,2!uint64 changed,3?uint32 made_with_key,4?bool attached_outside",
  ckpt_semaphore_undo_entry: "1!uint32 set,2*sint32 adjustments",
  ckpt_semaphore_undos_entry: "1*@ckpt_semaphore_undo_entry sets",
  ckpt_shared_port_entry: "1!uint32 group,2!uint32 index,3?bytes program",
  ckpt_snapshot_entry: "1!string subvolume,2!string snapshot,3!bytes parent",
  ckpt_socket_entry: "1!uint32 id,2*@ckpt_socket_option options,3?@ckpt_credentials_entry peer,4?uint32 uid,5?uint32 gid,6*uint32 pending,7?bool reset,8*@ckpt_packet_entry packets,9?bool lost_peer,10*string other_names,11*@ckpt_datagram_entry datagrams,12*@ckpt_membership_entry memberships,13?bytes unread,14?string interface,15?uint32 type,16?@ckpt_corked_entry corked,17*@ckpt_waiting_entry waiting,18?@ckpt_shared_port_entry shared_port,19?@ckpt_unaccepted_entry unaccepted,20?@ckpt_packet_rings_entry packet_rings",
  ckpt_socket_option: "1!uint32 level,2!uint32 name,3!bytes value",
  ckpt_sysctl_entry: "1!string name,2!string value",
  ckpt_target_entry: "1!uint32 index,2!uint32 file",
  ckpt_task_entry: "1?uint32 personality,2*@ckpt_thread_entry threads,3?uint32 coredump_filter,4?uint32 thp_disable_flags,5?uint32 mdwe,6?bool memory_merge,7?uint64 xcomp_permissions,8?uint32 lock_future,9*@ckpt_area_entry areas,10*@ckpt_cgroup_entry cgroups,11?uint32 exit_signal,12?bool stop_unreported,13?@ckpt_inherited_entry inherited,15?@ckpt_ended_entry ended,16?bool shares_io_context,17?bool shares_semaphore_undo,18?@ckpt_ended_leader_entry ended_leader,19?bool continue_unreported,20?uint32 parent_thread,21?@ckpt_cgroup_namespace_entry cgroup_namespace,22?bool awaited,23?@ckpt_semaphore_undos_entry semaphore_undos",
  ckpt_terminal_entry: "1!uint32 index,2*@ckpt_line_entry lines,3?bool quotes_next,4?bytes typed,5?bytes echoes,6?uint32 packet_status,7?uint32 output_stopped,8?uint32 input_stopped,9?uint32 mode,10*uint32 without",
  ckpt_thread_entry: "1!uint32 tid,2?uint64 timer_slack_ns,3?bytes affinity,4?bytes xsave,5?uint64 sud_mode,6?uint64 sud_selector,7?uint64 sud_offset,8?uint64 sud_len,9?uint32 tsc_mode,10?uint64 restart_left_ns,11?uint32 io_priority,12?uint32 speculation_store_bypass,13?uint32 speculation_indirect_branch,14?uint32 speculation_l1d_flush,15?bool cpuid_forbidden,16?uint32 machine_check_kill,17?bool io_flusher,18?uint32 utilization_min,19?uint32 utilization_max,20?uint64 time_slice_ns",
  ckpt_tun_entry: "1!string name,2!uint32 flags,3!bool no_pi,4!uint32 header_size,5!uint32 send_buffer,6!uint32 offloads,7?bool little_endian,8?bool big_endian,9?@ckpt_tun_link_entry link,10!uint32 id",
  ckpt_tun_link_entry: "1!uint32 index,2!uint32 flags,3!uint32 mtu,4!uint32 queue_length,5?bytes hardware_address,6?uint32 owner,7?uint32 group,8*bytes addresses,9*bytes routes,10*@ckpt_sysctl_entry sysctls",
  ckpt_unaccepted_entry: "1!uint32 index,2!bytes received",
  ckpt_waiting_entry: "1!uint32 ino,2!uint32 uid,3!uint32 gid,4*bytes sent",
  ckpt_watched_entry: "1!uint32 index,2!uint32 number,3!uint32 file",
  ckpt_watches_entry: "1!uint32 id,2*@ckpt_target_entry targets,3*@ckpt_filesystem_mark_entry filesystems,4?uint32 lost_events",
  ckpt_xattr_entry: "1!string name,2!bytes value",
  core_entry: "1!#core_entry_march mtype,2?@thread_info_x86 thread_info,3?@task_core_entry tc,4?@task_kobj_ids_entry ids,5?@thread_core_entry thread_core",
  cpuinfo_entry: "1*@cpuinfo_x86_entry x86_entry",
  cpuinfo_x86_entry: "1!#cpuinfo_x86_entry_vendor vendor_id,2!uint32 cpu_family,3!uint32 model,4!uint32 stepping,5!uint32 capability_ver,6*uint32 capability,7?string model_id,8?uint64 xfeatures_mask,9?uint32 xsave_size,10?uint32 xsave_size_max",
  creds_entry: "1!uint32 uid,2!uint32 gid,3!uint32 euid,4!uint32 egid,5!uint32 suid,6!uint32 sgid,7!uint32 fsuid,8!uint32 fsgid,9*uint32 cap_inh,10*uint32 cap_prm,11*uint32 cap_eff,12*uint32 cap_bnd,13!uint32 secbits,14*uint32 groups,15?string lsm_profile,16?string lsm_sockcreate,17?bytes apparmor_data,18?uint32 no_new_privs,19*uint32 cap_amb",
  dump_stats_entry: "1!uint32 freezing_time,2!uint32 frozen_time,3!uint32 memdump_time,4!uint32 memwrite_time,5!uint64 pages_scanned,6!uint64 pages_skipped_parent,7!uint64 pages_written,8?uint32 irmap_resolve,9!uint64 pages_lazy,10?uint64 page_pipes,11?uint64 page_pipe_bufs,12?uint64 shpages_scanned,13?uint64 shpages_skipped_parent,14?uint64 shpages_written",
  eventfd_file_entry: "1!uint32 id,2!uint32 flags,3!@fown_entry fown,4!uint64 counter",
  eventpoll_file_entry: "1!uint32 id,2!uint32 flags,3!@fown_entry fown,4*@eventpoll_tfd_entry tfd",
  eventpoll_tfd_entry: "1!uint32 id,2!uint32 tfd,3!uint32 events,4!uint64 data,5?uint32 dev,6?uint64 inode,7?uint64 pos",
  ext_file_entry: "1!uint32 id,5!@fown_entry fown",
  fanotify_file_entry: "1!uint32 id,2!uint32 flags,3!@fown_entry fown,4!uint32 faflags,5!uint32 evflags,6*@fanotify_mark_entry mark",
  fanotify_inode_mark_entry: "1!uint64 i_ino,2!@fh_entry f_handle",
  fanotify_mark_entry: "1!uint32 id,2!#mark_type type,3!uint32 mflags,4!uint32 mask,5!uint32 ignored_mask,6!uint32 s_dev,7?@fanotify_inode_mark_entry ie,8?@fanotify_mount_mark_entry me",
  fanotify_mount_mark_entry: "1!uint32 mnt_id,2?string path",
  fdinfo_entry: "1!uint32 id,2!uint32 flags,3!#fd_types type,4!uint32 fd,5?string xattr_security_selinux",
  fh_entry: "1!uint32 bytes,2!uint32 type,3*uint64 handle,4?string path,5?uint32 mnt_id",
  fifo_entry: "1!uint32 id,2!uint32 pipe_id,3?uint32 regf_id",
  file_entry: "1!#fd_types type,2!uint32 id,3?@reg_file_entry reg,4?@inet_sk_entry isk,5?@ns_file_entry nsf,6?@packet_sock_entry psk,7?@netlink_sk_entry nlsk,8?@eventfd_file_entry efd,9?@eventpoll_file_entry epfd,10?@signalfd_entry sgfd,11?@tunfile_entry tunf,12?@timerfd_entry tfd,13?@inotify_file_entry ify,14?@fanotify_file_entry ffy,15?@ext_file_entry ext,16?@unix_sk_entry usk,17?@fifo_entry fifo,18?@pipe_entry pipe,19?@tty_file_entry tty,20?@memfd_file_entry memfd,21?@bpfmap_file_entry bpf,22?@pidfd_entry pidfd",
  file_lock_entry: "1!uint32 flag,2!uint32 type,3!int32 pid,4!int32 fd,5!int64 start,6!int64 len",
  file_perms_entry: "1!uint32 mode,2!uint32 uid,3!uint32 gid",
  fown_entry: "1!uint32 uid,2!uint32 euid,3!uint32 signum,4!uint32 pid_type,5!uint32 pid",
  fs_entry: "1!uint32 cwd_id,2!uint32 root_id,3?uint32 umask",
  ghost_chunk_entry: "1!uint64 len,2!uint64 off",
  ghost_file_entry: "1!uint32 uid,2!uint32 gid,3!uint32 mode,4?uint32 dev,5?uint64 ino,6?uint32 rdev,7?@timeval atim,8?@timeval mtim,9?bool chunks,10?uint64 size,11?string symlnk_target",
  inet_sk_entry: "1!uint32 id,2!uint32 ino,3!uint32 family,4!uint32 type,5!uint32 proto,6!uint32 state,7!uint32 src_port,8!uint32 dst_port,9!uint32 flags,10!uint32 backlog,11*uint32 src_addr,12*uint32 dst_addr,13!@fown_entry fown,14!@sk_opts_entry opts,15?bool v6only,16?@ip_opts_entry ip_opts,17?string ifname,18?uint32 ns_id,19?#sk_shutdown shutdown,20?@tcp_opts_entry tcp_opts",
  inotify_file_entry: "1!uint32 id,2!uint32 flags,4!@fown_entry fown,5*@inotify_wd_entry wd",
  inotify_wd_entry: "1!uint32 id,2!uint64 i_ino,3!uint32 mask,4!uint32 ignored_mask,5!uint32 s_dev,6!uint32 wd,7!@fh_entry f_handle",
  inventory_entry: "1!uint32 img_version,2?bool fdinfo_per_id,3?@task_kobj_ids_entry root_ids,4?bool ns_per_id,5?uint32 root_cg_set,6?#lsmtype lsmtype,8?uint64 dump_uptime,9?uint32 pre_dump_mode,10?bool tcp_close,11?uint32 network_lock_method,12?@plugins_entry plugins_entry,13?string dump_criu_run_id,14?bool allow_uprobes",
  ip_opts_entry: "1?bool freebind,4?@ip_opts_raw_entry raw,5?bool pktinfo,6?uint32 tos,7?uint32 ttl",
  ip_opts_raw_entry: "1?bool hdrincl,2?bool nodefrag,3?bool checksum,4*uint32 icmpv_filter",
  ipc_desc_entry: "1!uint32 key,2!uint32 uid,3!uint32 gid,4!uint32 cuid,5!uint32 cgid,6!uint32 mode,7!uint32 id",
  ipc_msg: "1!uint64 mtype,2!uint32 msize",
  ipc_msg_entry: "1!@ipc_desc_entry desc,2!uint32 qbytes,3!uint32 qnum",
  ipc_sem_entry: "1!@ipc_desc_entry desc,2!uint32 nsems",
  ipc_shm_entry: "1!@ipc_desc_entry desc,2!uint64 size,3?bool in_pagemaps,4?uint32 hugetlb_flag",
  ipc_var_entry: "1*uint32 sem_ctls,2!uint32 msg_ctlmax,3!uint32 msg_ctlmnb,4!uint32 msg_ctlmni,5!uint32 auto_msgmni,6!uint64 shm_ctlmax,7!uint64 shm_ctlall,8!uint32 shm_ctlmni,9!uint32 shm_rmid_forced,10!uint32 mq_queues_max,11!uint32 mq_msg_max,12!uint32 mq_msgsize_max,13?uint32 mq_msg_default,14?uint32 mq_msgsize_default,15?uint32 msg_next_id,16?uint32 sem_next_id,17?uint32 shm_next_id",
  irmap_cache_entry: "1!uint32 dev,2!uint64 inode,3!string path",
  itimer_entry: "1!uint64 isec,2!uint64 iusec,3!uint64 vsec,4!uint64 vusec",
  macvlan_link_entry: "1!uint32 mode,2?uint32 flags",
  memfd_file_entry: "1!uint32 id,2!uint32 flags,3!uint64 pos,4!@fown_entry fown,5!uint32 inode_id",
  memfd_inode_entry: "1!string name,2!uint32 uid,3!uint32 gid,4!uint64 size,5!uint32 shmid,6!uint32 seals,7!uint64 inode_id,8?uint32 hugetlb_flag,9?uint32 mode",
  mm_entry: "1!uint64 mm_start_code,2!uint64 mm_end_code,3!uint64 mm_start_data,4!uint64 mm_end_data,5!uint64 mm_start_stack,6!uint64 mm_start_brk,7!uint64 mm_brk,8!uint64 mm_arg_start,9!uint64 mm_arg_end,10!uint64 mm_env_start,11!uint64 mm_env_end,12!uint32 exe_file_id,13*uint64 mm_saved_auxv,14*@vma_entry vmas,15?int32 dumpable,16*@aio_ring_entry aios,17?bool thp_disabled",
  mnt_entry: "1!uint32 fstype,2!uint32 mnt_id,3!uint32 root_dev,4!uint32 parent_mnt_id,5!uint32 flags,6!string root,7!string mountpoint,8!string source,9!string options,10?uint32 shared_id,11?uint32 master_id,12?bool with_plugin,13?bool ext_mount,14?string fsname,15?bool internal_sharing,16?bool deleted,17?uint32 sb_flags,18?string ext_key",
  net_device_entry: "1!#nd_type type,2!uint32 ifindex,3!uint32 mtu,4!uint32 flags,5!string name,6?@tun_link_entry tun,7?bytes address,8*int32 conf,9*@sysctl_entry conf4,10*@sysctl_entry conf6,11?@macvlan_link_entry macvlan,12?uint32 peer_ifindex,13?uint32 peer_nsid,14?uint32 master,15?@sit_entry sit",
  netlink_sk_entry: "1!uint32 id,2!uint32 ino,3!uint32 protocol,4!uint32 state,6!uint32 flags,7!uint32 portid,8*uint32 groups,9!uint32 dst_portid,10!uint32 dst_group,11!@fown_entry fown,12!@sk_opts_entry opts,13?uint32 ns_id",
  netns_entry: "1*int32 def_conf,2*int32 all_conf,3*@sysctl_entry def_conf4,4*@sysctl_entry all_conf4,5*@sysctl_entry def_conf6,6*@sysctl_entry all_conf6,7*@netns_id nsids,8?string ext_key,9*@sysctl_entry unix_conf,10*@sysctl_entry ipv4_sysctl",
  netns_id: "1!uint32 target_ns_id,2!int32 netnsid_value",
  ns_file_entry: "1!uint32 id,2!uint32 ns_id,3!uint32 ns_cflag,4!uint32 flags",
  packet_mclist: "1!uint32 index,2!uint32 type,3!bytes addr",
  packet_ring: "1!uint32 block_size,2!uint32 block_nr,3!uint32 frame_size,4!uint32 frame_nr,5!uint32 retire_tmo,6!uint32 sizeof_priv,7!uint32 features",
  packet_sock_entry: "1!uint32 id,2!uint32 type,3!uint32 protocol,4!uint32 flags,5!uint32 ifindex,6!@fown_entry fown,7!@sk_opts_entry opts,8!uint32 version,9!uint32 reserve,10!bool aux_data,11!bool orig_dev,12!bool vnet_hdr,13!bool loss,14!uint32 timestamp,15!uint32 copy_thresh,16*@packet_mclist mclist,17?uint32 fanout,18?@packet_ring rx_ring,19?@packet_ring tx_ring,20?uint32 ns_id",
  pagemap_entry: "1!uint64 vaddr,2!uint32 compat_nr_pages,3?bool in_parent,4?uint32 flags,5?uint64 nr_pages",
  pagemap_head: "1!uint32 pages_id",
  pidfd_entry: "1!uint32 id,2!uint32 ino,3!uint32 flags,4!int32 nspid,5!@fown_entry fown",
  pidns_entry: "1?string ext_key",
  pipe_data_entry: "1!uint32 pipe_id,2!uint32 bytes,3?uint32 size",
  pipe_entry: "1!uint32 id,2!uint32 pipe_id,3!uint32 flags,4!@fown_entry fown",
  plugins_entry: "12*string plugins",
  posix_timer_entry: "1!uint32 it_id,2!uint32 clock_id,3!uint32 si_signo,4!uint32 it_sigev_notify,5!uint64 sival_ptr,6!uint32 overrun,7!uint64 isec,8!uint64 insec,9!uint64 vsec,10!uint64 vnsec,11?int32 notify_thread_id",
  pstree_entry: "1!uint32 pid,2!uint32 ppid,3!uint32 pgid,4!uint32 sid,5*uint32 threads",
  reg_file_entry: "1!uint32 id,2!uint32 flags,3!uint64 pos,5!@fown_entry fown,6!string name,7?sint32 mnt_id,8?uint64 size,9?bool ext,10?uint32 mode,11*uint32 build_id,12?uint32 checksum,13?uint32 checksum_config,14?uint32 checksum_parameter",
  remap_file_path_entry: "1!uint32 orig_id,2!uint32 remap_id,3?#remap_type remap_type",
  restore_stats_entry: "1!uint64 pages_compared,2!uint64 pages_skipped_cow,3!uint32 forking_time,4!uint32 restore_time,5?uint64 pages_restored",
  rlimit_entry: "1!uint64 cur,2!uint64 max",
  rseq_entry: "1!uint64 rseq_abi_pointer,2!uint32 rseq_abi_size,3!uint32 signature,4?uint64 rseq_cs_pointer",
  sa_entry: "1!uint64 sigaction,2!uint64 flags,3!uint64 restorer,4!uint64 mask,5?bool compat_sigaction,6?uint64 mask_extended",
  scm_entry: "1!uint32 type,2*uint32 rights",
  seccomp_entry: "1*@seccomp_filter seccomp_filters",
  seccomp_filter: "1!bytes filter,2?uint32 prev,3?uint32 flags",
  siginfo_entry: "1!bytes siginfo",
  signal_queue_entry: "1*@siginfo_entry signals",
  signalfd_entry: "1!uint32 id,2!uint32 flags,3!@fown_entry fown,4!uint64 sigmask",
  sit_entry: "1?uint32 link,2*uint32 local,3*uint32 remote,4?uint32 ttl,5?uint32 tos,6?bool pmtudisc,7?uint32 proto,8?uint32 flags,9?uint32 encap_type,10?uint32 encap_flags,11?uint32 encap_sport,12?uint32 encap_dport,13?uint32 rd_prefixlen,14*uint32 rd_prefix,15?uint32 relay_prefixlen,16*uint32 relay_prefix",
  sk_opts_entry: "1!uint32 so_sndbuf,2!uint32 so_rcvbuf,3!uint64 so_snd_tmo_sec,4!uint64 so_snd_tmo_usec,5!uint64 so_rcv_tmo_sec,6!uint64 so_rcv_tmo_usec,7?bool reuseaddr,8?uint32 so_priority,9?uint32 so_rcvlowat,10?uint32 so_mark,11?bool so_passcred,12?bool so_passsec,13?bool so_dontroute,14?bool so_no_check,15?string so_bound_dev,16*fixed64 so_filter,17?bool so_reuseport,18?bool so_broadcast,19?bool so_keepalive,20?uint32 tcp_keepcnt,21?uint32 tcp_keepidle,22?uint32 tcp_keepintvl,23?uint32 so_oobinline,24?uint32 so_linger,25?uint32 so_buf_lock",
  sk_packet_entry: "1!uint32 id_for,2!uint32 length,4*@scm_entry scm",
  stats_entry: "1?@dump_stats_entry dump,2?@restore_stats_entry restore",
  sysctl_entry: "1!#SysctlType type,2?int32 iarg,3?string sarg",
  task_core_entry: "1!uint32 task_state,2!uint32 exit_code,3!uint32 personality,4!uint32 flags,5!uint64 blk_sigset,6!string comm,7?@task_timers_entry timers,8?@task_rlimits_entry rlimits,9?uint32 cg_set,10?@signal_queue_entry signals_s,11?#seccomp_mode old_seccomp_mode,12?uint32 old_seccomp_filter,13?uint32 loginuid,14?int32 oom_score_adj,15*@sa_entry sigactions,18?bool child_subreaper,20?uint64 blk_sigset_extended,21?uint32 stop_signo,22?uint32 membarrier_registration_mask",
  task_kobj_ids_entry: "1!uint32 vm_id,2!uint32 files_id,3!uint32 fs_id,4!uint32 sighand_id,5?uint32 pid_ns_id,6?uint32 net_ns_id,7?uint32 ipc_ns_id,8?uint32 uts_ns_id,9?uint32 mnt_ns_id,10?uint32 user_ns_id,11?uint32 cgroup_ns_id,12?uint32 time_ns_id",
  task_rlimits_entry: "1*@rlimit_entry rlimits",
  task_timers_entry: "1!@itimer_entry real,2!@itimer_entry virt,3!@itimer_entry prof,4*@posix_timer_entry posix",
  tcp_opts_entry: "1?bool cork,2?bool nodelay,3?uint32 keepcnt,4?uint32 keepidle,5?uint32 keepintvl",
  tcp_stream_entry: "1!uint32 inq_len,2!uint32 inq_seq,3!uint32 outq_len,4!uint32 outq_seq,5!uint32 opt_mask,6!uint32 snd_wscale,7!uint32 mss_clamp,8?uint32 rcv_wscale,9?uint32 timestamp,10?bool cork,11?bool nodelay,12?uint32 unsq_len,13?uint32 snd_wl1,14?uint32 snd_wnd,15?uint32 max_window,16?uint32 rcv_wnd,17?uint32 rcv_wup",
  termios_entry: "1!uint32 c_iflag,2!uint32 c_oflag,3!uint32 c_cflag,4!uint32 c_lflag,5!uint32 c_line,6!uint32 c_ispeed,7!uint32 c_ospeed,8*uint32 c_cc",
  thread_core_entry: "1!uint64 futex_rla,2!uint32 futex_rla_len,3?sint32 sched_nice,4?uint32 sched_policy,5?uint32 sched_prio,6?uint64 blk_sigset,7?@thread_sas_entry sas,8?uint32 pdeath_sig,9?@signal_queue_entry signals_p,10?@creds_entry creds,11?#seccomp_mode seccomp_mode,12?uint32 seccomp_filter,13?string comm,14?uint64 blk_sigset_extended,15?@rseq_entry rseq_entry,16?uint32 cg_set",
  thread_info_x86: "1!uint64 clear_tid_addr,2!@user_x86_regs_entry gpregs,3!@user_x86_fpregs_entry fpregs,4*@user_desc_t tls",
  thread_sas_entry: "1!uint64 ss_sp,2!uint64 ss_size,3!uint32 ss_flags",
  timens_entry: "1!@timespec monotonic,2!@timespec boottime",
  timerfd_entry: "1!uint32 id,2!uint32 flags,3!@fown_entry fown,4!uint32 clockid,5!uint64 ticks,6!uint32 settime_flags,7!uint64 vsec,8!uint64 vnsec,9!uint64 isec,10!uint64 insec",
  timespec: "1!uint64 tv_sec,2!uint64 tv_nsec",
  timeval: "1!uint64 tv_sec,2!uint64 tv_usec",
  tty_data_entry: "1!uint32 tty_id,2!bytes data",
  tty_file_entry: "1!uint32 id,2!uint32 tty_info_id,3!uint32 flags,4!@fown_entry fown,6?uint32 regf_id",
  tty_info_entry: "1!uint32 id,2!#TtyType type,3!bool locked,4!bool exclusive,5!bool packet_mode,6!uint32 sid,7!uint32 pgrp,8!uint32 rdev,9?@termios_entry termios,10?@termios_entry termios_locked,11?@winsize_entry winsize,12?@tty_pty_entry pty,13?uint32 dev,14?uint32 uid,15?uint32 gid",
  tty_pty_entry: "1!uint32 index",
  tun_link_entry: "1!uint32 flags,2!int32 owner,3!int32 group,4!uint32 vnethdr,5!uint32 sndbuf",
  tunfile_entry: "1!uint32 id,2?string netdev,3?bool detached,4?uint32 ns_id",
  uid_gid_extent: "1!uint32 first,2!uint32 lower_first,3!uint32 count",
  unix_sk_entry: "1!uint32 id,2!uint32 ino,3!uint32 type,4!uint32 state,5!uint32 flags,6!uint32 uflags,7!uint32 backlog,8!uint32 peer,9!@fown_entry fown,10!@sk_opts_entry opts,11!bytes name,12?#sk_shutdown shutdown,13?@file_perms_entry file_perms,14?string name_dir,15?bool deleted,16?uint32 ns_id,17?sint32 mnt_id",
  user_desc_t: "1!uint32 entry_number,2!uint32 base_addr,3!uint32 limit,4!bool seg_32bit,5!bool contents_h,6!bool contents_l,7!bool read_exec_only,8!bool limit_in_pages,9!bool seg_not_present,10!bool usable",
  user_x86_cet_entry: "1!uint64 cet,2!uint64 ssp",
  user_x86_fpregs_entry: "1!uint32 cwd,2!uint32 swd,3!uint32 twd,4!uint32 fop,5!uint64 rip,6!uint64 rdp,7!uint32 mxcsr,8!uint32 mxcsr_mask,9*uint32 st_space,10*uint32 xmm_space,11*uint32 padding,13?@user_x86_xsave_entry xsave",
  user_x86_regs_entry: "1!uint64 r15,2!uint64 r14,3!uint64 r13,4!uint64 r12,5!uint64 bp,6!uint64 bx,7!uint64 r11,8!uint64 r10,9!uint64 r9,10!uint64 r8,11!uint64 ax,12!uint64 cx,13!uint64 dx,14!uint64 si,15!uint64 di,16!uint64 orig_ax,17!uint64 ip,18!uint64 cs,19!uint64 flags,20!uint64 sp,21!uint64 ss,22!uint64 fs_base,23!uint64 gs_base,24!uint64 ds,25!uint64 es,26!uint64 fs,27!uint64 gs,28?#user_x86_regs_mode mode",
  user_x86_xsave_entry: "1!uint64 xstate_bv,2*uint32 ymmh_space,3*uint64 bndreg_state,4*uint64 bndcsr_state,5*uint64 opmask_reg,6*uint64 zmm_upper,7*uint64 hi16_zmm,8*uint32 pkru,9?@user_x86_cet_entry cet",
  userns_entry: "1*@uid_gid_extent uid_map,2*@uid_gid_extent gid_map",
  utsns_entry: "1!string nodename,2!string domainname",
  vma_entry: "1!uint64 start,2!uint64 end,3!uint64 pgoff,4!uint64 shmid,5!uint32 prot,6!uint32 flags,7!uint32 status,8!sint64 fd,9?uint64 madv,10?uint32 fdflags",
  winsize_entry: "1!uint32 ws_row,2!uint32 ws_col,3!uint32 ws_xpixel,4!uint32 ws_ypixel",
};
