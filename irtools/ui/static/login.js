"use strict";
// The token is after the # of the address, which browsers do not send; it becomes a cookie.
async function enter(token) {
  const answer = await fetch("/login", {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({token}),
  });
  if (answer.ok) {
    history.replaceState(null, "", "/");
    location.reload();
  } else {
    document.getElementById("problem").textContent = "That is not the token of this server.";
  }
}
document.getElementById("login").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(document.getElementById("token").value);
});
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) enter(given);
