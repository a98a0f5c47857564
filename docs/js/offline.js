// A page that was opened as a file may start no worker: the site's search would stop with an error, so it is taken out there.
if (location.protocol === "file:") {
  window.Worker = class { postMessage() {} };
  document.querySelectorAll('[data-bs-target="#mkdocs_search_modal"]').forEach((link) => link.closest("li").remove());
}
