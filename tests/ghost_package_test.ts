/** A Debian package that is upgraded while a program of it runs. */
import { assertEquals } from "@std/assert";
import { mountFileSystem } from "./file_systems.ts";
import { assertSuccess, compile, dump, restore, Scope } from "./harness.ts";

/** $0: the program, $1: the version, $2: the root that dpkg works on. */
const INSTALL = `set -e
package=$2.package-$1
mkdir -p $package/DEBIAN $package/opt/test
printf '%s\\n' "Package: ckpt-test" "Version: $1" "Architecture: all" \\
  "Maintainer: nobody <nobody@localhost>" "Description: a program that runs" > $package/DEBIAN/control
if [ $1 = 1 ]; then
  cp $0 $package/opt/test/program
  cp "$(gcc -print-file-name=libm.so.6)" $package/opt/test/library.so
else
  echo 'the new version' | tee $package/opt/test/program > $package/opt/test/library.so
fi
dpkg-deb --root-owner-group --build $package $package.deb
mkdir -p $2/var/lib/dpkg/info $2/var/lib/dpkg/updates
: >> $2/var/lib/dpkg/status
dpkg --root=$2 --log=/dev/null --install $package.deb`;

for (const name of ["ext4", "overlay on ext4"]) {
  Deno.test(`a program whose package was upgraded by dpkg on ${name} survives two dumps and restores`, async () => {
    await using scope = new Scope();
    const { places: [place] } = await mountFileSystem(scope, name);
    const executable = await compile("ghost_program");
    const root = `${place}/root`;
    const install = async (version: string) =>
      assertSuccess(
        await scope.bash(INSTALL, executable, version, root),
        `dpkg, version ${version}`,
      );
    await install("1");
    const work = scope.path("work");
    const program = await scope.startCommand(work, executable, [
      ...[work, "upgraded", `${root}/opt/test`],
    ]);
    await program.ready();
    await install("2");
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images));
      await restore(scope, program, scope.path(images));
    }
    assertEquals(await program.verify(), "ok");
  });
}
