// A table of circuits, asked for every second. The token is in the fragment: `#token=…`.
const token = new URLSearchParams(location.hash.slice(1)).get('token');
const headers = token ? { authorization: `Bearer ${token}` } : {};

async function show() {
  const trouble = document.getElementById('trouble');
  try {
    const answer = await fetch('api/v1/circuits', { headers, credentials: 'omit' });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error.message);
    document.getElementById('circuits').replaceChildren(...said.circuits.map((circuit) => {
      const row = document.createElement('tr');
      for (const text of [circuit.id, circuit.state, circuit.sentence]) {
        row.append(Object.assign(document.createElement('td'), { textContent: text }));
      }
      return row;
    }));
    trouble.textContent = '';
  } catch (error) {
    trouble.textContent = error.message;
  }
}

show();
setInterval(show, 1000);
