# Bash with job control in its own session: jobs in the background, stopped jobs, a trap on SIGCHLD. jobs.sh DIRECTORY
work=$1
set -m
worker() {
  # counts in a file until told to end
  local n=0
  trap "echo \$n >$work/worker-$1-ended; exit $((20 + $1))" TERM
  while :; do echo $((++n)) >"$work/worker-$1"; sleep 0.02; done
}
for i in 1 2 3; do worker $i & pids[i]=$!; done
sleep 1000 & pids[4]=$!
(sleep 1000; exit 3) & pids[5]=$!
for i in 1 2 3; do until [[ -s $work/worker-$i ]]; do sleep 0.01; done; done
kill -STOP %2 %4
until [[ $(jobs -s | wc -l) == 2 ]]; do sleep 0.01; done
: >"$work/ready"
while [[ ! -e $work/go ]]; do sleep 0.02; done
wrong=
same() { [[ $2 == "$3" ]] || wrong+="$1: $2 and not $3"$'\n'; }
state() { local s; s=$(</proc/${pids[$1]}/stat); s=${s##*) }; echo "${s:0:1}"; }
same "stopped jobs" "$(jobs -s | wc -l)" 2
same "running jobs" "$(jobs -r | wc -l)" 3
same "state of job 2" "$(state 2)" T
same "state of job 4" "$(state 4)" T
before=$(<"$work/worker-2")
sleep 0.2
same "what a stopped job has counted" "$(<"$work/worker-2")" "$before"
bg %2 >/dev/null
for ((i = 0; i < 500; i++)); do [[ $(<"$work/worker-2") != "$before" ]] && break; sleep 0.01; done
[[ $(<"$work/worker-2") != "$before" ]] || wrong+="job 2 does not go on"$'\n'
# The status that a job has left, after its end: `wait -f` of a job that was stopped loops for ever in some bash.
status() { while kill -0 ${pids[$1]} 2>/dev/null; do sleep 0.01; done; wait ${pids[$1]}; }
kill %1 %2 %3
for i in 1 2 3; do
  status $i
  same "exit status of job $i" $? $((20 + i))
  [[ -s $work/worker-$i-ended ]] || wrong+="job $i did not run its trap"$'\n'
done
kill -KILL %4 %5
for i in 4 5; do
  status $i
  same "exit status of job $i" $? 137
done
printf '%s' "${wrong:-ok
}" >"$work/result.new"
mv "$work/result.new" "$work/result"
[[ -z $wrong ]]
