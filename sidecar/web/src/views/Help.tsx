import { language, LANGUAGES, type Language, speak, t } from "../i18n";
import { about } from "../state/app";
import { Dialog } from "./Dialog";

const isMac = navigator.platform.startsWith("Mac");
const COMMAND = isMac ? "⌘" : "Ctrl";

export function Help() {
  const keys: [string[], string][] = [
    [["Enter"], t("keySend")],
    [["Shift", "Enter"], t("keyLine")],
    [["Esc"], t("keyStop")],
    [["↑"], t("keyEditLast")],
    [[COMMAND, "Shift", "O"], t("keyNew")],
    [[COMMAND, "K"], t("keySearch")],
    [[COMMAND, "B"], t("keySidebar")],
    [["A"], t("keyAllow")],
    [["D"], t("keyDeny")],
    [["?"], t("keyHelp")],
  ];
  return (
    <Dialog title={t("keys")}>
      <dl class="keys">
        {keys.map(([combination, meaning]) => (
          <div>
            <dt>
              {combination.map((key) => (
                <kbd>{key}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <footer>
        <label>
          {t("language")}
          <select
            value={language.value}
            onChange={(event) => speak(event.currentTarget.value as Language)}
          >
            {Object.entries(LANGUAGES).map(([code, name]) => (
              <option value={code}>{name}</option>
            ))}
          </select>
        </label>
        <span class="faint">{t("version", { version: about.value?.server.version ?? "" })}</span>
      </footer>
    </Dialog>
  );
}
