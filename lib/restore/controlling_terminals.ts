/** Who has the terminals that control sessions, and which group is in front. */
import type { AgentProcess } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { giveUpControl, setForeground } from "../files/terminal_control.ts";
import type { Report } from "../report.ts";
import { forkHelper } from "./deliver.ts";
import type { TreeAgents } from "./tree_agents.ts";

export function shareTerminals(agents: TreeAgents, report: Report): void {
  for (const { path, master, extension } of agents.images.terminals.all) {
    const { sid, pgrp } = master;
    for (const pid of extension?.without ?? []) {
      const program = new Program();
      giveUpControl(program, path);
      agents.run(agents.get(pid), program);
    }
    const leader = agents.living.get(sid)?.tree;
    if (leader === undefined || leader.pgid === pgrp || pgrp === 0) continue;
    const agent = agents.get(sid);
    const exists = agents.images.tree.some((process) =>
      process.pgid === pgrp && process.sid === sid
    );
    if (exists) bringToFront(agents, agent, path, pgrp);
    else bringGoneGroupToFront(agents, agent, path, pgrp, report);
  }
}

function bringToFront(
  agents: TreeAgents,
  agent: AgentProcess,
  path: string,
  group: number,
): void {
  const program = new Program();
  setForeground(program, path, group);
  agents.run(agent, program);
}

/** A helper is the group for a moment; then that is gone as it was. */
function bringGoneGroupToFront(
  agents: TreeAgents,
  agent: AgentProcess,
  path: string,
  group: number,
  report: Report,
): void {
  if (taskExists(group)) {
    report.log(
      2,
      `the group ${group} in the foreground of ${path} is gone, and ` +
        "another task has its number now: the group of the session's " +
        "leader is in the foreground instead",
    );
    return;
  }
  const born = new Program();
  forkHelper(born, group);
  const [pid] = agents.run(agent, born, 1);
  const helper = agents.adopt(agent, pid);
  const lead = new Program();
  lead.call("setpgid", [0, 0], `making process group ${group}`);
  agents.run(helper, lead);
  bringToFront(agents, agent, path, group);
  agents.end([helper], agent);
}
