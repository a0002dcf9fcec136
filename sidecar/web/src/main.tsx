// The page: takes the session out of the address, connects, and shows what there is.

import { render } from "preact";

import "./styles/app.css";
import { link } from "./net/connection";
import * as session from "./net/session";
import { start } from "./state/app";
import { App } from "./views/App";

const root = document.getElementById("app");
if (root) render(<App />, root);
addEventListener("hashchange", () => location.reload()); // a new code for this very tab
if (await session.open()) start();
else link.value = "refused";
