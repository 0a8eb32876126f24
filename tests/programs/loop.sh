# Bash in a loop of builtins: variables, arrays, functions, traps, an open file. loop.sh WORK_DIRECTORY
work=$1
declare -A squares
declare -a order
trap 'trapped=$((trapped + 1))' USR1
exec 9>>"$work/numbers"
step() {
  local n=$1
  squares[$n]=$((n * n))
  order+=("$n")
  printf '%d\n' "$n" >&9
}
n=0
while ((n < 500)); do step $((n++)); done
: >"$work/ready"
while [[ ! -e $work/go ]]; do ((spins++)); done
while ((n < 1000)); do step $((n++)); done
kill -USR1 $$
wrong=
for ((i = 0; i < 1000; i++)); do
  [[ ${squares[$i]} == $((i * i)) && ${order[i]} == "$i" ]] || wrong+="entry $i: ${squares[$i]} ${order[i]}"$'\n'
done
mapfile -t written <"$work/numbers"
[[ ${#written[@]} == 1000 && ${written[999]} == 999 ]] || wrong+="the file has ${#written[@]} lines"$'\n'
[[ $trapped == 1 ]] || wrong+="trapped ${trapped:-never}"$'\n'
printf '%s' "${wrong:-ok
}" >"$work/result"
[[ -z $wrong ]]
