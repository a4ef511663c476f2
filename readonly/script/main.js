window.readOnlyMode = { delay: delay };

if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", begin); } else { begin(); }
