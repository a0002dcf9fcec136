// A file of a message: an image is shown, anything else can be downloaded.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { t } from "../i18n";
import { download, fetched } from "../net/files";
import { attempt } from "../state/app";
import type { Attached } from "../state/message";
import { visible } from "../text";
import { Icon } from "./icons";

const SHOWN = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

export function FileView({ file }: { file: Omit<Attached, "kind"> }) {
  const { attachmentId, mime, name } = file;
  const shown = visible(name ?? mime);
  if (SHOWN.has(mime)) return <Picture id={attachmentId} name={shown} />;
  return (
    <button type="button" class="file" title={t("download")} onClick={() => void attempt(download(attachmentId, name ?? "file"))}>
      <Icon name="file" />
      {shown || t("download")}
    </button>
  );
}

function Picture({ id, name }: { id: string; name: string }) {
  const address = useSignal<string | null>(null);
  useEffect(() => {
    let mine: string | null = null;
    let isGone = false;
    const load = async () => {
      mine = await fetched(id);
      if (isGone) URL.revokeObjectURL(mine);
      else address.value = mine;
    };
    void attempt(load());
    return () => {
      isGone = true;
      if (mine) URL.revokeObjectURL(mine);
    };
  }, [id]);
  if (!address.value) return <div class="picture" />;
  return <img class="picture" src={address.value} alt={name} />;
}
