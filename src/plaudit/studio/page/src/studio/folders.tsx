import { useId, useState } from "preact/hooks";
import { request, type Page } from "../api";
import { useAction, useGet } from "../ui/data";
import { useJobs } from "./jobs";
import type { Job } from "./types";

interface FolderInfo {
  path: string;
  clips?: number | null;
}

interface Props {
  label: string;
  value: string;
  onChange(path: string): void;
}

/** A folder of the studio, or files that are uploaded into one. */
export function FolderField({ label, value, onChange }: Props) {
  const id = useId();
  const folders = useGet<Page<FolderInfo>>("/folders", { limit: 200 });
  const [status, setStatus] = useState("");
  const { put } = useJobs();
  const upload = useAction(async (files: FileList) => {
    const form = new FormData();
    for (const file of Array.from(files)) form.append("files", file, file.webkitRelativePath || file.name);
    setStatus(`Uploading ${files.length === 1 ? files[0]!.name : `${files.length} files`}…`);
    try {
      const answer = await request<{ folder: string; job?: Job }>("POST", "/uploads", form);
      if (answer.job) put(answer.job);
      onChange(answer.folder);
      folders.reload();
      setStatus("Uploaded.");
    } catch (fault) {
      setStatus("");
      throw fault;
    }
  });
  const paths = folders.data?.items ?? [];
  return (
    <div class="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} required value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        <option value="">{paths.length ? "choose…" : "upload files first"}</option>
        {value && !paths.some((folder) => folder.path === value) && <option value={value}>{value}</option>}
        {paths.map((folder) => (
          <option key={folder.path} value={folder.path}>
            {folder.path}
            {folder.clips ? ` (${folder.clips})` : ""}
          </option>
        ))}
      </select>
      <label class="upload small">
        Upload audio files
        <input
          type="file"
          multiple
          accept="audio/*,.wav,.flac,.ogg,.mp3"
          onChange={(event) => {
            const { files } = event.currentTarget;
            if (files?.length) void upload.run(files);
          }}
        />
      </label>
      <span class="hint" role="status">
        {status}
      </span>
      {(upload.error || folders.error) && (
        <span class="small fault" role="alert">
          {upload.error || folders.error}
        </span>
      )}
    </div>
  );
}
