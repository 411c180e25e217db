// Characters and their ids.

class Vocabulary {
  // data: {characters: all of them in order, or null for the bytes of UTF-8;
  //        spellings: by code point, the ids of what is written for a character it lacks;
  //        shown, names: by id, what to draw and what to call it}
  constructor({characters, spellings, shown, names}) {
    Object.assign(this, {spellings, shown, names});
    this.characters = characters === null ? null : Array.from(characters);
    this.ids = characters === null ? null : new Map(this.characters.map((c, id) => [c, id]));
  }

  // The ids of a text, and how many of its characters were respelled or dropped.
  encode(text) {
    if (this.characters === null) {
      return {ids: Array.from(new TextEncoder().encode(text)), respelled: 0, dropped: 0};
    }
    const ids = [];
    let respelled = 0, dropped = 0;
    for (const character of text) {
      const id = this.ids.get(character), code = character.codePointAt(0);
      if (id !== undefined) {
        ids.push(id);
      } else if (Object.hasOwn(this.spellings, code)) {
        ids.push(...this.spellings[code]);
        respelled++;
      } else {
        dropped++;
      }
    }
    return {ids, respelled, dropped};
  }

  decode(ids) {
    if (this.characters === null) return new TextDecoder().decode(Uint8Array.from(ids));
    let text = "";
    for (const id of ids) text += this.characters[id];
    return text;
  }
}
