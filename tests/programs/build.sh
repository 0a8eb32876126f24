# `make -j4` that builds a small C program of many files. build.sh WORK_DIRECTORY
work=$1
files=24
mkdir -p "$work/src"
cd "$work/src" || exit 2
{
  echo "OBJECTS := $(for ((i = 0; i < files; i++)); do printf 'f%d.o ' $i; done)"
  printf 'program: main.o $(OBJECTS)\n\tgcc -o $@ $^\n'
  # every object takes its time until the test lets all go on
  printf '%%.o: %%.c\n\tgcc -O2 -c -o $@ $<\n\t@test -e %s/go || sleep 0.2\n\t@test $* != f3 || : >%s/ready\n' "$work" "$work"
} >Makefile
for ((i = 0; i < files; i++)); do
  {
    echo '#include <math.h>'
    for ((k = 0; k < 60; k++)); do echo "double g${i}_$k(double x) { for (int i = 0; i < 9; i++) x = sin(x) * $k; return x; }"; done
    echo "int f$i(int x) { return x + $i; }"
  } >f$i.c
done
{
  echo '#include <stdio.h>'
  for ((i = 0; i < files; i++)); do echo "int f$i(int);"; done
  echo 'int main(void) { int x = 0;'
  for ((i = 0; i < files; i++)); do echo "x = f$i(x);"; done
  echo 'printf("%d\n", x); return 0; }'
} >main.c
sed -i 's/gcc -o \$@ \$^/gcc -o $@ $^ -lm/' Makefile
make -j4 >"$work/make.log" 2>&1
status=$?
wrong=
[[ $status == 0 ]] || wrong+="make ended with $status: $(tail -5 "$work/make.log")"$'\n'
[[ $(./program) == $((files * (files - 1) / 2)) ]] || wrong+="the program says $(./program)"$'\n'
printf '%s' "${wrong:-ok
}" >"$work/result.new"
mv "$work/result.new" "$work/result"
[[ -z $wrong ]]
