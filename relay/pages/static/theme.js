// Before anything is drawn: the theme that was chosen here, if one was.
try {
  const theme = localStorage.getItem("relay-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* without storage, the system's choice stands */ }
