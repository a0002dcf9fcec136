// Bundles src/ into dist/: the page's files as they are served, and the licences of what is in them.
// Says how large they are, and fails when the page has grown beyond its budget.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const OUT = "dist";
const BUDGET_KB = 110; // gzipped, all of it, what is loaded late too but for formulas
const LATE = /^math-/; // which few answers have

await rm(OUT, { recursive: true, force: true });
await mkdir(OUT);
const { metafile } = await build({
  entryPoints: { app: "src/main.tsx" },
  outdir: OUT,
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none", // they are all in NOTICES.txt
  chunkNames: "[name]-[hash]",
  metafile: true,
});
await copyFile("src/index.html", `${OUT}/index.html`);
await writeFile(`${OUT}/NOTICES.txt`, await notices(Object.keys(metafile.inputs)));

let sum = 0;
for (const name of (await readdir(OUT)).sort()) {
  if (name === "NOTICES.txt") continue;
  const bytes = gzipSync(await readFile(`${OUT}/${name}`), { level: 9 }).length;
  if (!LATE.test(name)) sum += bytes;
  console.log(`${(bytes / 1000).toFixed(1).padStart(7)} kB gzipped  ${name}`);
}
console.log(`${(sum / 1000).toFixed(1).padStart(7)} kB of ${BUDGET_KB}, without formulas`);
if (sum > BUDGET_KB * 1000) throw new Error("The page is larger than its budget.");

async function notices(inputs) {
  const packages = new Set();
  for (const path of inputs) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
    if (found) packages.add(found[1]);
  }
  const texts = [...packages].sort().map(async (name) => {
    const folder = `node_modules/${name}`;
    const { version, license } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
    const file = (await readdir(folder)).find((each) => /^licen[cs]e/i.test(each));
    if (!file) throw new Error(`${name} has no licence file.`);
    const text = await readFile(`${folder}/${file}`, "utf8");
    return `${name} ${version} (${license})\n\n${text.trim()}\n`;
  });
  return (await Promise.all(texts)).join(`\n${"-".repeat(72)}\n\n`);
}
