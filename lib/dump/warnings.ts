/** What a dump tells people although it succeeds: what the image does not hold. */
import type { Description } from "../files/descriptors.ts";
import { lostPackets } from "../files/sockets.ts";
import type { Report } from "../report.ts";
import { warnOfTrust } from "./mounts.ts";
import type { Still } from "./still.ts";
import type { TreeSurvey } from "./survey_tree.ts";

/** @param survey how the stopped tree was judged */
export function warnOfLosses(
  survey: TreeSurvey,
  still: Still,
  report: Report,
): void {
  for (const { id, attachedOutside } of survey.seen.segments.segments) {
    if (attachedOutside) {
      report.log(
        2,
        `System V segment ${id} is attached to processes outside the tree, ` +
          "too, which may have written to it while it was saved",
      );
    }
  }
  warnOfUnreadEvents(survey, report);
  warnOfTrust(survey.mounts, report);
  const { unseen } = still.moreOfSockets.sharedPorts ?? {};
  if (unseen !== undefined) {
    report.log(
      2,
      "the program shares ports (SO_REUSEPORT): their order, and a program " +
        `that chooses among them (SO_ATTACH_REUSEPORT_CBPF), are lost: ${unseen}`,
    );
  }
  const lost = still.moreOfSockets.multicastDevices?.unseen;
  if (lost !== undefined) {
    report.log(
      2,
      "the program sends to multicast groups: the network device for that is " +
        `lost where it was chosen by number (IP_MULTICAST_IF): ${lost}`,
    );
  }
  for (const socket of lostPackets(still.tables)) {
    report.log(
      2,
      `${socket}: packets that the program has not read are not part of the ` +
        "image",
    );
  }
}

/** They stay with the program that is dumped; nobody can copy them. */
function warnOfUnreadEvents({ processes }: TreeSurvey, report: Report): void {
  const told = new Set<Description>();
  for (const { pid, descriptors } of processes) {
    for (const { fd, description } of descriptors.descriptors) {
      const { unread = 0, link } = description;
      if (unread === 0 || told.has(description)) continue;
      told.add(description);
      report.log(
        2,
        `descriptor ${fd} (${link}) of task ${pid}: events of ${unread} bytes ` +
          "that the program has not read are not part of the image",
      );
    }
  }
}
