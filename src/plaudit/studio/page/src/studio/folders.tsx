import { useEffect, useId, useState } from "preact/hooks";
import { request } from "../api";
import { useAction, useGet } from "../ui/data";
import { plural } from "../ui/format";
import { Select } from "../ui/parts";
import { useJob, useJobs } from "./jobs";
import type { Job } from "./types";

export interface FolderInfo {
  path: string;
  kind: "upload" | "generation" | "run";
  name: string;
  clips: number;
}

export function folderLabel(folder: FolderInfo): string {
  return `${folder.name || folder.path} (${KIND[folder.kind]}, ${plural(folder.clips, "clip")})`;
}

const KIND = { upload: "uploaded", generation: "generated", run: "run" };

interface Props {
  label: string;
  value: string;
  /** What the folder of an upload is called. */
  uploadName?: string;
  onChange(path: string): void;
}

/** A folder of the studio, or files that are uploaded into one. */
export function FolderField({ label, value, uploadName, onChange }: Props) {
  const id = useId();
  const folders = useGet<{ items: FolderInfo[] }>("/folders");
  const [status, setStatus] = useState("");
  const [uploading, setUploading] = useState<string | null>(null);
  const { put } = useJobs();
  const job = useJob(uploading);
  useEffect(() => {
    if (!job || job.status === "queued" || job.status === "running") return;
    setStatus(job.status === "done" ? "Uploaded." : (job.error ?? "The upload was cancelled."));
    folders.reload();
  }, [job?.status]);
  const upload = useAction(async (files: FileList) => {
    const form = new FormData();
    for (const file of Array.from(files)) form.append("files", file, file.webkitRelativePath || file.name);
    setStatus(`Uploading ${files.length === 1 ? files[0]!.name : `${files.length} files`}…`);
    try {
      const answer = await request<{ folder: string; job: Job }>("POST", "/uploads", form, { query: { name: uploadName } });
      put(answer.job);
      onChange(answer.folder);
      setUploading(answer.job.id);
      setStatus("Uploaded; decoding…");
    } catch (fault) {
      setStatus("");
      throw fault;
    }
  });
  const paths = folders.data?.items ?? [];
  return (
    <div class="field">
      <label htmlFor={id}>{label}</label>
      <Select
        id={id}
        required
        value={value}
        onChange={onChange}
        placeholder={paths.length ? "choose…" : "upload files first"}
        options={[
          ...(value && !paths.some((folder) => folder.path === value) ? [[value, value] as const] : []),
          ...paths.map((folder) => [folder.path, folderLabel(folder)] as const),
        ]}
      />
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
