/**
 * Values of a network namespace that images of CRIU have, by their places in
 * lists of fixed order (criu.org's netdev.proto).
 */
import { type sysctl_entry, SysctlType } from "../image/schema.gen.ts";

interface List {
  /** Where each is, below /proc/sys; "*" is for the device. */
  readonly place: string;
  readonly names: readonly string[];
}

const words = (text: string) => text.trim().split(/\s+/);

export const SYSCTL_LISTS = {
  conf4: {
    place: "net/ipv4/conf/*",
    names: words(`
      accept_local accept_redirects accept_source_route arp_accept arp_announce
      arp_filter arp_ignore arp_notify bootp_relay disable_policy disable_xfrm
      force_igmp_version forwarding igmpv2_unsolicited_report_interval
      igmpv3_unsolicited_report_interval log_martians medium_id
      promote_secondaries proxy_arp proxy_arp_pvlan route_localnet rp_filter
      secure_redirects send_redirects shared_media src_valid_mark tag
      ignore_routes_with_linkdown drop_gratuitous_arp
      drop_unicast_in_l2_multicast`),
  },
  conf6: {
    place: "net/ipv6/conf/*",
    names: words(`
      accept_dad accept_ra accept_ra_defrtr accept_ra_from_local
      accept_ra_min_hop_limit accept_ra_mtu accept_ra_pinfo
      accept_ra_rt_info_max_plen accept_ra_rtr_pref accept_redirects
      accept_source_route autoconf dad_transmits disable_ipv6
      drop_unicast_in_l2_multicast drop_unsolicited_na force_mld_version
      force_tllao forwarding hop_limit ignore_routes_with_linkdown
      keep_addr_on_down max_addresses max_desync_factor
      mldv1_unsolicited_report_interval mldv2_unsolicited_report_interval mtu
      ndisc_notify optimistic_dad proxy_ndp regen_max_retry
      router_probe_interval router_solicitation_delay
      router_solicitation_interval router_solicitations stable_secret
      suppress_frag_ndisc temp_prefered_lft temp_valid_lft use_oif_addrs_only
      use_optimistic use_tempaddr`),
  },
  unix: { place: "net/unix", names: ["max_dgram_qlen"] },
  ipv4: { place: "net/ipv4", names: ["ping_group_range"] },
} as const satisfies Record<string, List>;

/** Values that are texts, whatever they look like. */
const TEXTS: ReadonlySet<string> = new Set([
  "stable_secret",
  "ping_group_range",
]);

function placeOf({ place }: List, device: string, name: string): string {
  return `${place.replace("*", device)}/${name}`;
}

/** @param values by their places below /proc/sys */
export function sysctlEntries(
  list: List,
  values: ReadonlyMap<string, string>,
  device = "",
): sysctl_entry[] {
  return list.names.map((name) => {
    const value = values.get(placeOf(list, device, name));
    if (TEXTS.has(name)) return { type: SysctlType.CTL_STR, sarg: value };
    return {
      type: SysctlType.CTL_32,
      iarg: value === undefined ? undefined : Number(value) | 0,
    };
  });
}

/** Paths and texts of the values that are there. */
export function sysctlValues(
  list: List,
  entries: readonly sysctl_entry[],
  device = "",
): [path: string, value: string][] {
  return entries.slice(0, list.names.length).flatMap(({ iarg, sarg }, i) => {
    const value = sarg ?? iarg;
    return value === undefined
      ? []
      : [[`/proc/sys/${placeOf(list, device, list.names[i])}`, `${value}`]];
  });
}
