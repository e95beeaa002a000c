import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import preact from "@preact/preset-vite";
import { defineConfig, type Plugin } from "vite";

const root = import.meta.dirname;
const LEFT_OUT = new Set(["node_modules", "dev", ".vite"]);

/** Files that a build is made from, as POSIX paths relative to this folder, sorted. */
function sourceFiles(folder = root): string[] {
  return readdirSync(folder)
    .filter((name) => !LEFT_OUT.has(name))
    .flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? sourceFiles(path) : [relative(root, path).split(sep).join("/")];
    })
    .sort();
}

function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** Digest of every source: of the lines "<sha256 of the file>  <path>\n". tests/studio/test_static.py computes it too. */
function sourcesDigest(): string {
  return sha256(sourceFiles().map((path) => `${sha256(readFileSync(join(root, path)))}  ${path}\n`).join(""));
}

/** Writes build.json: what the build was made from, and what it consists of. */
function buildRecord(): Plugin {
  return {
    name: "build-record",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const files = Object.fromEntries(
        Object.values(bundle)
          .map((file) => [file.fileName, sha256(file.type === "chunk" ? file.code : file.source)] as const)
          .sort(([a], [b]) => (a < b ? -1 : 1)),
      );
      const source = JSON.stringify({ sources: sourcesDigest(), files }, null, 1) + "\n";
      this.emitFile({ type: "asset", fileName: "build.json", source });
    },
  };
}

/**
 * The content security policy allows no inline style, and wavesurfer.js writes a <style> element into its shadow root.
 * It becomes a <template>, which src/audio/Waveform.tsx puts into the root's adopted style sheets.
 */
function wavesurferStyle(): Plugin {
  return {
    name: "wavesurfer-style",
    enforce: "pre",
    transform(code, id) {
      if (!id.includes("wavesurfer.esm.js")) return null;
      const changed = code.replace(/<style\$\{.*?\}>(?=\\n)/, "<template>").replace("</style>", "</template>");
      if (changed === code || changed.includes("<style") || changed.includes("</style>")) {
        throw new Error("wavesurfer.js no longer writes its style as expected: look at vite.config.ts");
      }
      return { code: changed, map: null };
    },
  };
}

export const plugins = [preact({ devToolsEnabled: false }), wavesurferStyle(), buildRecord()];

export default defineConfig({
  root,
  base: "/",
  publicDir: false,
  plugins,
  build: {
    outDir: resolve(root, "../static"),
    emptyOutDir: true,
    target: "es2022",
    // Inlined assets and the polyfill's inline script would be against the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    rollupOptions: { input: { studio: join(root, "index.html"), listen: join(root, "listen.html") } },
  },
});
