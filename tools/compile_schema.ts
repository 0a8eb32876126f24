/**
 * Compiles `proto/*.proto` into `lib/image/schema.gen.ts`: one line of text per
 * message, which `lib/image/message.ts` reads when the message is first used,
 * and a TypeScript interface per message.
 *
 * Run it after every change of a schema: `deno run -A tools/compile_schema.ts`.
 * The result is kept in the repository, so that checking and testing need no
 * build step; a test compares it with the schema.
 */

import protobuf from "protobufjs";

const SCALARS: Record<string, string> = {
  bool: "boolean",
  bytes: "Uint8Array",
  fixed64: "bigint",
  int32: "number",
  int64: "bigint",
  sint32: "number",
  sint64: "bigint",
  string: "string",
  uint32: "number",
  uint64: "bigint",
};

/**
 * The text of `schema.gen.ts`.
 * @param directory holds the .proto files
 * @throws Error when a schema does not parse, or uses what the codec does not
 * know
 */
export function compileSchema(directory: string): string {
  const root = new protobuf.Root();
  const files = [...Deno.readDirSync(directory)].map((entry) => entry.name)
    .filter((name) => name.endsWith(".proto")).sort();
  for (const file of files) {
    protobuf.parse(Deno.readTextFileSync(`${directory}/${file}`), root, {
      keepCase: true,
    });
  }
  root.resolveAll();

  const enums: protobuf.Enum[] = [];
  const messages: protobuf.Type[] = [];
  const collect = (parent: protobuf.NamespaceBase) => {
    for (const child of parent.nestedArray) {
      if (child instanceof protobuf.Enum) enums.push(child);
      if (child instanceof protobuf.Type) {
        messages.push(child);
        collect(child);
      }
    }
  };
  collect(root);
  enums.sort(byName);
  messages.sort(byName);

  return [
    "// deno-fmt-ignore-file",
    "// deno-lint-ignore-file",
    "/**",
    " * The messages of the image format. Written by tools/compile_schema.ts from",
    " * proto/*.proto: change those, and run it.",
    " */",
    "",
    ...enums.flatMap(enumText),
    ...messages.flatMap(interfaceText),
    "/** Every message by its name. */",
    "export interface Messages {",
    ...messages.map((type) => `  ${plainName(type)}: ${plainName(type)};`),
    "}",
    "",
    "/** Every enumeration by its name. */",
    "export const ENUMS: Readonly<Record<string, Readonly<Record<string, number>>>> = {",
    ...enums.map((type) => `  ${plainName(type)},`),
    "};",
    "",
    "/**",
    " * Fields of every message: number, then ! required, ? optional or * repeated,",
    " * then the type (@ a message, # an enumeration) and the name.",
    " */",
    "export const SCHEMA: Readonly<Record<keyof Messages, string>> = {",
    ...messages.map((type) =>
      `  ${plainName(type)}: ${
        JSON.stringify(fieldsInOrder(type).map(fieldText).join(","))
      },`
    ),
    "};",
    "",
  ].join("\n");
}

function byName(a: protobuf.ReflectionObject, b: protobuf.ReflectionObject) {
  return plainName(a) < plainName(b) ? -1 : 1;
}

/** A nested name joins its parts: `core_entry_march`. */
function plainName(object: protobuf.ReflectionObject): string {
  return object.fullName.slice(1).replaceAll(".", "_");
}

function fieldsInOrder(type: protobuf.Type): protobuf.Field[] {
  return type.fieldsArray.toSorted((a, b) => a.id - b.id);
}

function enumText(type: protobuf.Enum): string[] {
  const name = plainName(type);
  return [
    `export const ${name} = {`,
    ...Object.entries(type.values).map(([key, value]) => `  ${key}: ${value},`),
    "} as const;",
    `/** One of {@link ${name}}, or a number that a newer writer knows. */`,
    `export type ${name} = number;`,
    "",
  ];
}

function interfaceText(type: protobuf.Type): string[] {
  return [
    `export interface ${plainName(type)} {`,
    ...fieldsInOrder(type).flatMap((field) => {
      const base = field.resolvedType
        ? plainName(field.resolvedType)
        : SCALARS[field.type];
      const lines = defaultOf(field);
      if (field.repeated) return [...lines, `  ${field.name}: ${base}[];`];
      return field.required
        ? [...lines, `  ${field.name}: ${base};`]
        : [...lines, `  ${field.name}?: ${base} | undefined;`];
    }),
    "}",
    "",
  ];
}

function defaultOf(field: protobuf.Field): string[] {
  const value = field.options?.default;
  return value === undefined ? [] : [`  /** Absent means ${value}. */`];
}

function fieldText(field: protobuf.Field): string {
  const label = field.repeated ? "*" : field.required ? "!" : "?";
  return `${field.id}${label}${typeText(field)} ${field.name}`;
}

function typeText(field: protobuf.Field): string {
  if (field.resolvedType instanceof protobuf.Enum) {
    return "#" + plainName(field.resolvedType);
  }
  if (field.resolvedType) return "@" + plainName(field.resolvedType);
  if (!(field.type in SCALARS)) {
    throw new Error(`${field.fullName}: the codec does not know ${field.type}`);
  }
  return field.type;
}

if (import.meta.main) {
  const here = import.meta.dirname!;
  Deno.writeTextFileSync(
    `${here}/../lib/image/schema.gen.ts`,
    compileSchema(`${here}/../proto`),
  );
}
