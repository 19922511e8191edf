// nodemailer's smtp-server at every address of the world that wants it; it logs connections, commands and TLS.
"use strict";
const fs = require("node:fs");
const settings = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { SMTPServer } = require(settings.library);

const log = fs.createWriteStream(settings.log, { flags: "a" });

for (const row of settings.rows) {
    const has = (word) => row.settings.includes(word);
    const write = (text) => log.write(`${row.address} ${text}\n`);
    const say = (entry, text, ...rest) => {
        if (entry && entry.tnx === "command") write(`C: ${rest[0] ?? text}`);
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
        onSecure(socket, session, done) {
            write(`TLS: ${socket.getProtocol()} ${socket.getCipher().name}`);
            done();
        },
        logger,
    });
    server.on("error", (error) => write(`error: ${error.message}`));
    server.server.on("connection", () => write("connect"));
    // What it never says by itself: the keyword before TLS, in another spelling, and slipped in before the handshake.
    const connect = server.connect.bind(server);
    server.connect = (socket, options) => {
        connect(socket, options);
        const connection = [...server.connections].at(-1);
        const send = connection.send.bind(connection);
        connection.send = (code, lines, ...rest) => {
            if (code === 250 && Array.isArray(lines)) {
                if (!connection.secure && has("plain_requiretls")) lines = [...lines, "REQUIRETLS"];
                if (has("lower_case")) lines = lines.map((line) => (line === "REQUIRETLS" ? "requiretls x=1" : line));
            }
            socket.cork(); // both replies in one packet
            send(code, lines, ...rest);
            if (has("injected") && lines === "Ready to start TLS") socket.write("250 REQUIRETLS\r\n");
            socket.uncork();
        };
    };
    server.listen(25, row.address);
}
