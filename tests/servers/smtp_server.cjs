// nodemailer's smtp-server at every address of the world that wants it; each command of a client goes to the log.
"use strict";
const fs = require("node:fs");
const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { SMTPServer } = require(settings.library);

const log = fs.createWriteStream(settings.log, { flags: "a" });

for (const row of settings.rows) {
    const has = (word) => row.settings.includes(word);
    const say = (entry, text, ...rest) => {
        if (entry && entry.tnx === "command") log.write(`${row.address} C: ${rest[0] ?? text}\n`);
    };
    const logger = { level() {}, trace() {}, debug: say, info() {}, warn() {}, error() {}, fatal() {} };
    const server = new SMTPServer({
        name: row.host,
        banner: "nodemailer",
        key: fs.readFileSync(`${row.pair}.key`),
        cert: fs.readFileSync(`${row.pair}.crt`),
        disableReverseLookup: true,
        authOptional: true,
        authMethods: [],
        hideSTARTTLS: has("no_starttls"),
        hideREQUIRETLS: has("no_requiretls"),
        logger,
    });
    server.on("error", () => {});
    // What it never says by itself: the keyword before TLS, and in another spelling.
    server.server.prependListener("connection", () => setImmediate(() => {
        for (const connection of server.connections) {
            if (connection.retold) continue;
            connection.retold = true;
            const send = connection.send.bind(connection);
            connection.send = (code, lines, ...rest) => {
                if (code === 250 && Array.isArray(lines)) {
                    if (!connection.secure && has("plain_requiretls")) lines = [...lines, "REQUIRETLS"];
                    if (has("lower_case")) lines = lines.map((line) => (line === "REQUIRETLS" ? "requiretls x=1" : line));
                }
                return send(code, lines, ...rest);
            };
        }
    }));
    server.listen(25, row.address);
}
