# A bash pipeline in the middle of its work: numbers from a producer, through four commands, to a sum. pipeline.sh DIRECTORY
work=$1
count=20000
produce() {
  # slow until told to go on, so that there is always something on its way
  local n=0
  while ((n < count)); do
    printf '%d some text that fills the pipes %d\n' $((n)) $((n * n))
    ((++n % 50)) || { [[ -e $work/go ]] || sleep 0.01; }
    ((n == 2000)) && : >"$work/ready"
    # half of it is for the time after
    while ((n == count / 2)) && [[ ! -e $work/go ]]; do sleep 0.01; done
  done
}
answer=$(produce | sed -u 's/some text/other text/' | tee "$work/copy" | grep other | awk '{ sum += $1; lines++ } END { print lines, sum }')
wrong=
[[ ${PIPESTATUS[*]} == 0 ]] || wrong+="statuses ${PIPESTATUS[*]}"$'\n'
[[ $answer == "$count $((count * (count - 1) / 2))" ]] || wrong+="the pipeline says $answer"$'\n'
[[ $(wc -l <"$work/copy") == "$count" ]] || wrong+="the copy has $(wc -l <"$work/copy") lines"$'\n'
for ((i = 0; i < 50; i++)); do sleep 0.001; done
printf '%s' "${wrong:-ok
}" >"$work/result.new"
mv "$work/result.new" "$work/result"
[[ -z $wrong ]]
