/** Huge pages of the host (/proc/sys/vm/nr_hugepages, proc_sys_vm(5)), for the tests that need some. */
const HUGE_PAGES = "/proc/sys/vm/nr_hugepages";

/** Reserves so many more until it is disposed of; where they cannot be had, programs say so. */
export class ReservedHugePages implements Disposable {
  readonly #before = Number(Deno.readTextFileSync(HUGE_PAGES));

  constructor(pages: number) {
    this.#reserve(this.#before + pages);
  }

  #reserve(pages: number): void {
    try {
      Deno.writeTextFileSync(HUGE_PAGES, `${pages}`);
    } catch (error) {
      console.log(`huge pages are as they are: ${error}`);
    }
  }

  [Symbol.dispose](): void {
    this.#reserve(this.#before);
  }
}
