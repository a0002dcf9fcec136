// Drawn on a grid of 24, in the colour of the text.

const PATHS = {
  archive: "M4 4h16v4H4zM6 8v12h12V8M10 12h4",
  attach: "m20 11-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7l-8.5 8.5a1.7 1.7 0 0 1-2.4-2.4L14.5 7",
  back: "m15 5-7 7 7 7",
  check: "m5 12.5 4.5 4.5L19 7.5",
  close: "m6 6 12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  down: "m6 9 6 6 6-6",
  download: "M12 4v11m-5-4.5 5 5 5-5M5 20h14",
  edit: "m4 20 1-4L16 5l3 3L8 19zM14 7l3 3",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  forward: "m9 5 7 7-7 7",
  help: "M9 9a3 3 0 1 1 4.2 2.7c-.8.4-1.2 1-1.2 1.8v.5m0 3v.2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  menu: "M4 6h16M4 12h16M4 18h16",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  new: "M12 5v14M5 12h14",
  pin: "M9 4h6l-1 6 3 3v2H7v-2l3-3zM12 15v6",
  power: "M12 3v9m5.7-5.7a8 8 0 1 1-11.4 0",
  remove: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5m4-5v5",
  retry: "M20 12a8 8 0 1 1-2.5-5.8M20 4v5h-5",
  search: "m20 20-4.5-4.5M17 10.5a6.5 6.5 0 1 1-13 0 6.5 6.5 0 0 1 13 0z",
  send: "M12 19V5m-6 6 6-6 6 6",
  stop: "M7 7h10v10H7z",
  tool: "M14.5 6.5a4 4 0 0 1 5-1.2L17 7.8l1.2 1.2 2.5-2.5a4 4 0 0 1-5.4 5.4L8 19.2 4.8 16l7.3-7.3a4 4 0 0 1 2.4-2.2z",
  warning: "M12 4 2.5 20h19zM12 10v4m0 3v.2",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
